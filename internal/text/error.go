package text

// Error returns err if its text is what [Text] makes of it, else an error that has the text of
// Text and wraps err. Its cost is that of err.Error and Text.
func Error(err error) error {
	is := err.Error()
	if valid := Text(is); valid != is {
		return &validError{valid, err}
	}
	return err
}

type validError struct {
	text string
	err  error
}

func (e *validError) Error() string { return e.text }
func (e *validError) Unwrap() error { return e.err }
