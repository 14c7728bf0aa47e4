//go:build goexperiment.greenteagc

package reach

// markBytes is what Green Tea takes of a page for its marks.
const markBytes = 128
