package alloctest

import (
	"flag"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
)

var limitFlag = flag.String("alloctest.limit", "", "fail tests that have more than so many `bytes` live at once, such as 64MiB")

// WithLimit fails the test at its end if more than so many bytes were live at once, and says who had them
// then. It refuses no allocation. Zero and less is no limit; a smaller one of the flag -alloctest.limit goes before it.
func WithLimit(bytes int64) Option {
	return optionFunc(func(c *config) { c.limit = max(0, bytes) })
}

// flaggedLimit returns the bytes of the flag, 0 if there are none.
func flaggedLimit() (int64, error) {
	if *limitFlag == "" {
		return 0, nil
	}
	number, unit := strings.TrimRight(*limitFlag, "KMGTiB"), 0
	if suffix := (*limitFlag)[len(number):]; suffix != "" {
		unit = slices.Index([]string{"B", "KiB", "MiB", "GiB", "TiB"}, suffix)
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 || unit < 0 || n > math.MaxInt64>>(10*unit) {
		return 0, fmt.Errorf("-alloctest.limit=%s: use a number above 0 of B, KiB, MiB, GiB or TiB, such as 64MiB", *limitFlag)
	}
	return n << (10 * unit), nil
}

// verifyLimit fails the test if more than limit bytes of p were live at once, and sets the attributes of the test.
func verifyLimit(t TestingT, p *alloctrace.Proxy, limit int64) {
	t.Helper()
	s, profile := p.Stats(), Profile(p)
	peak, least := s.PeakBytes, s.PeakBytes-s.PeakBound
	if s.PeakBound > 0 && profile != nil && profile.Rate() == 1 { // it has children, whose peaks the Stats add up
		least = max(least, profile.Peak().Get().Bytes)
		peak = least
	}
	if a, ok := t.(interface{ Attr(key, value string) }); ok {
		a.Attr("alloctest.peak_bytes", strconv.FormatInt(peak, 10))
		a.Attr("alloctest.leaked_bytes", strconv.FormatInt(s.LiveBytes, 10))
	}
	if limit == 0 || least <= limit {
		return
	}
	text := fmt.Sprintf("alloctest: %v had %s live at once, and its limit is %s: free earlier, or raise it", p, counter.FormatBytes(peak), counter.FormatBytes(limit))
	if profile != nil {
		if at := profile.Peak().Get(); len(at.Samples) > 0 {
			text += "\n" + at.String()
		}
	}
	t.Errorf("%s", text)
}
