package debugpage

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/internal/text"
)

// maxShown is how many bytes of a header an error repeats.
const maxShown = 100

// forwarded are headers by which a proxy says that a request comes from somebody else.
var forwarded = []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"}

// crossOrigin refuses requests that change something, and that another site's page has made.
var crossOrigin = http.NewCrossOriginProtection()

// refuse returns why a request is refused, with its status, or "".
func refuse(a page.Access, r *http.Request) (status int, why string) {
	if !a.Remote && !isLoopback(r) {
		return http.StatusForbidden, fmt.Sprintf(
			"this page is for the machine that the program runs on, and the request comes from %s: reach it through a tunnel, such as ssh -L 8080:localhost:8080, or set Remote of debugpage.Options where your own authentication is in front of it",
			text.Line(origin(r), maxShown))
	}
	if !knownHost(a, r) {
		return http.StatusForbidden, fmt.Sprintf(
			"the Host header is %q, by which another site could have its pages read this one: use localhost, or name it in Hosts of debugpage.Options", text.Line(r.Host, maxShown))
	}
	if err := crossOrigin.Check(r); err != nil {
		return http.StatusForbidden, err.Error() + ": use the button of the page itself"
	}
	// What a page of another site embeds or fetches, it cannot read, but it would cost the program work. It may link here.
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" && site != "none" && r.Header.Get("Sec-Fetch-Mode") != "navigate" {
		return http.StatusForbidden, "the request comes from a page of another site: open this one instead"
	}
	return 0, ""
}

// isLoopback reports whether a request comes from this machine, and not through a proxy that says for whom.
func isLoopback(r *http.Request) bool {
	for _, name := range forwarded {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	if local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok && strings.HasPrefix(local.Network(), "unix") {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	return err == nil && peer.Addr().Unmap().IsLoopback()
}

// origin returns who a request comes from.
func origin(r *http.Request) string {
	for _, name := range forwarded {
		if v := r.Header.Get(name); v != "" {
			return fmt.Sprintf("%s, through a proxy at %s", v, r.RemoteAddr)
		}
	}
	return r.RemoteAddr
}

// knownHost reports whether the Host header is a name that no other site can have a browser resolve to this machine: a name or address
// of loopback, the address that was connected to, or one that the user has named.
func knownHost(a page.Access, r *http.Request) bool {
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	for _, known := range a.Hosts {
		if strings.EqualFold(strings.TrimSuffix(known, "."), host) || strings.EqualFold(known, r.Host) {
			return true
		}
	}
	addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
	if err != nil {
		return host == "localhost" || strings.HasSuffix(host, ".localhost")
	}
	if addr.Unmap().IsLoopback() {
		return true
	}
	local, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return false
	}
	own, err := netip.ParseAddrPort(local.String())
	return err == nil && own.Addr().Unmap().WithZone("") == addr.Unmap().WithZone("")
}

// policy is what the browser may load: nothing that the page does not bring along.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"

// protect sets the headers by which a browser keeps others away from an answer.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
}
