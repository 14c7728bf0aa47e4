# The targets call .ci/steps, as .ci/run does in CI, so that a check is the same in both places.

.PHONY: help check integration cross bench screenshots ci

help: ## what can be made
	@sed -n 's/^\([a-z]*\): ## \(.*\)/make \1\t\2/p' Makefile | expand -t 20

check: ## gofmt, tests, vet, staticcheck, govulncheck where it can run, tests with -race
	.ci/steps fmt tests vet lint vulns race

integration: ## all tests with nothing left out: a real Jaeger (built once, in 4 to 10 minutes) and the long storms
	.ci/steps integration

cross: ## the other platforms: 386, the other Go release, wasm, arm64 by qemu, Windows by Wine, and vet for those that cannot run here
	.ci/steps i386 releases emulated platforms

bench: ## one row a measure: name value unit bound ok|over
	.ci/steps bench

screenshots: ## the pictures of README and docs: a flame graph, memory limits, the live page, Jaeger's user interface (see .ci/screenshots)
	.ci/flamegraph
	.ci/page screenshots
	go run ./exporters/memlimit/plot -o exporters/memlimit/memlimit.svg
	.ci/screenshots

ci: ## everything, as CI does it; installs Debian packages that are missing
	.ci/run
