// The JSON of the page's answers is documented in exporters/internal/page/data.go.
package debugpage
