package otlp

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// envTLS reads the certificates. It returns nil if no variable names one.
func envTLS() (*tls.Config, error) {
	var config tls.Config
	name, path := lookupOTLP("CERTIFICATE")
	if path != "" {
		pem, err := readPEM(name, path)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, envError(name, path, "no certificate is in the file", "give a PEM file with the collector's certificate or that of its authority")
		}
	}
	certName, certPath := lookupOTLP("CLIENT_CERTIFICATE")
	keyName, keyPath := lookupOTLP("CLIENT_KEY")
	switch {
	case certPath == "" && keyPath == "":
		if path == "" {
			return nil, nil
		}
		return &config, nil
	case keyPath == "":
		_, missing := otlpNames("CLIENT_KEY")
		return nil, envError(certName, certPath, "a client certificate without its key", "set "+missing+" to the PEM file of the key")
	case certPath == "":
		_, missing := otlpNames("CLIENT_CERTIFICATE")
		return nil, envError(keyName, keyPath, "a client key without its certificate", "set "+missing+" to the PEM file of the certificate")
	}
	cert, err := readPEM(certName, certPath)
	if err != nil {
		return nil, err
	}
	key, err := readPEM(keyName, keyPath)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s=%q and %s=%q: not a certificate and its key (%w); give PEM files that belong together", certName, certPath, keyName, keyPath, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return &config, nil
}

// brokenOff are texts of connections that ended without a word. gRPC hands on no more than the text.
var brokenOff = []string{"EOF", "connection reset", "broken pipe", "forcibly closed", "client conn could not be established"}

// explainTLS adds to the error of a connection that broke off what may be the reason. By TLS 1.3 a server looks at the client's
// certificate when the client takes the connection for made, and sends data: what the server answers may get lost.
func explainTLS(err error) error {
	text := err.Error()
	if strings.Contains(text, "tls: ") || !slices.ContainsFunc(brokenOff, func(s string) bool { return strings.Contains(text, s) }) {
		return err
	}
	_, name := otlpNames("CLIENT_CERTIFICATE")
	return fmt.Errorf("%w (a server that asks for client certificates may end a connection like this if it trusts none that it gets: see %s)", err, name)
}

func readPEM(name, path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%s=%q: the file cannot be read (%w); give the path of a PEM file", name, path, bare(err))
	}
	return b, nil
}

// bare returns an error of the file system without the operation and the path.
func bare(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
