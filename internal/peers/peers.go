// Package peers measures this library beside what users would pick instead.
package peers
