package otlp

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// An authority issues certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newAuthority writes the authority's certificate to a file in dir.
func newAuthority(t *testing.T, dir, file string) *authority {
	t.Helper()
	a := &authority{t: t, dir: dir}
	a.cert = &x509.Certificate{Subject: pkix.Name{CommonName: file}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.issue(a.cert, file, "")
	return a
}

// issue writes a certificate and its key. An authority without a key signs itself.
func (a *authority) issue(template *x509.Certificate, certFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	template.NotBefore = template.NotAfter.Add(-48 * time.Hour)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if file == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) issueClient(name string, notAfter time.Time) {
	a.t.Helper()
	a.issue(&x509.Certificate{Subject: pkix.Name{CommonName: name}, NotAfter: notAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, name+".pem", name+"-key.pem")
}

// TestJaegerAsksForCertificates: a Jaeger with the TLS of docs/collector.md takes spans of a program with the settings of that
// page. It takes none of another, which counts them and says why.
func TestJaegerAsksForCertificates(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca.pem")
	ca.issue(&x509.Certificate{Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "server.pem", "server-key.pem")
	ca.issueClient("client", time.Time{})
	ca.issueClient("expired", time.Now().Add(-time.Hour))
	newAuthority(t, dir, "other-ca.pem").issueClient("stranger", time.Time{})

	j := jaegertest.Start(t, jaegertest.WithConfig(strings.ReplaceAll(guideBlocks(t, "yaml")[1], "/etc/collector", filepath.ToSlash(dir))),
		jaegertest.WithConfig(loopback))
	settings := strings.ReplaceAll(strings.ReplaceAll(guideBlocks(t, "sh")[0], "export ", ""), "/etc/search", dir)
	eachProtocol(t, func(t *testing.T, proto Protocol) {
		address := strings.TrimPrefix(jaegerEndpoint(j, proto), "http://")
		for _, x := range []struct {
			name     string
			old, new string // of the settings
			want     string // in the error
		}{
			{name: "the right certificate"},
			{"no certificate", "/client", "", "certificate"},
			{"of another authority", "/client", "/stranger", "certificate"},
			{"expired", "/client", "/expired", "certificate"},
			{"a server of another authority", "/ca.pem", "/other-ca.pem", "unknown authority"},
			{"no TLS", "https:", "http:", ""}, // the system says how the connection ended
		} {
			t.Run(x.name, func(t *testing.T) {
				text := strings.ReplaceAll(settings, "collector:4317", address)
				if x.name == "no certificate" {
					text = text[:strings.Index(text, "OTEL_EXPORTER_OTLP_CLIENT")]
				} else if x.old != "" {
					text = strings.ReplaceAll(text, x.old, x.new)
				}
				setenv(t, text)
				service := x.name + " by " + proto.String()
				send := func(timeout time.Duration, want Stats) error {
					p := newTestProvider(t, Options{Protocol: proto, ServiceName: service, Timeout: timeout})
					emit(p, 5)
					err := p.Shutdown(within(t, 2*time.Minute))
					wantStats(t, p, want)
					return err
				}
				if x.old == "" {
					if err := send(time.Minute, Stats{Accepted: 5, Exported: 5}); err != nil {
						t.Fatal(err)
					}
					if n := len(j.FindTraces(service)); n != 5 {
						t.Errorf("Jaeger has %d traces, want 5", n)
					}
					return
				}
				// By gRPC a batch is tried again until its time is over. A slow machine needs more for the first try.
				for timeout := 500 * time.Millisecond; ; timeout *= 2 {
					err := send(timeout, Stats{Accepted: 5, Failed: 5})
					if err != nil && strings.Contains(err.Error(), "5 of 5 spans did not reach") && strings.Contains(err.Error(), x.want) {
						return
					}
					if timeout > time.Minute {
						t.Fatalf("Shutdown returned %v, want %q", err, x.want)
					}
				}
			})
		}
		for _, service := range j.Services() {
			if !strings.HasPrefix(service, "the right certificate") {
				t.Errorf("Jaeger has spans of %q", service)
			}
		}
	})
}

// TestExplainTLS: a connection that broke off gets a possible reason, and an error with its own does not.
func TestExplainTLS(t *testing.T) {
	for _, x := range []struct {
		err  error
		hint bool
	}{
		{&url.Error{Op: "Post", URL: "https://host", Err: io.EOF}, true},
		{&url.Error{Op: "Post", URL: "https://host", Err: errors.New("http2: client conn could not be established")}, true},
		{status.Error(codes.Unavailable, `connection error: desc = "error reading server preface: read tcp: connection reset by peer"`), true},
		{status.Error(codes.Unavailable, `connection error: desc = "error reading server preface: remote error: tls: certificate required"`), false},
		{context.DeadlineExceeded, false},
	} {
		got := explainTLS(x.err)
		if !errors.Is(got, x.err) || !strings.HasPrefix(got.Error(), x.err.Error()) || strings.Contains(got.Error(), "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE") != x.hint {
			t.Errorf("%v becomes %v; want a hint: %t", x.err, got, x.hint)
		}
	}
}
