//go:build !goexperiment.greenteagc

package reach

const markBytes = 0
