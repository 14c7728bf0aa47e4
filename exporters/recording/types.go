package recording

// A Frame is a function that was called, and where in it.
type Frame struct {
	Function string `json:"function"` // with the path of its package
	File     string `json:"file"`
	Line     int    `json:"line"`
}
