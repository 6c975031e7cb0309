# Go is all that make run and make test need. make help lists the targets.

GO ?= go
# What only lint and compare need is in a module of its own.
TOOL = $(GO) tool -modfile=$(CURDIR)/tools/go.mod
# Of each fuzz target, in make fuzz: a time, or a count such as 20000x.
FUZZTIME ?= 10s
# What has Go benchmarks beside it, and how often make compare runs them.
BENCHED = ./limiter ./keys ./keys/shared ./metrics ./sse ./pool ./proxy
BENCHCOUNT ?= 6
# Of make soak.
SOAKTIME ?= 1m
# Of make soak: how much a flood may raise the p99 of others.
FLOODFACTOR ?= 2

# The race detector needs a C compiler; go env knows whether there is one.
RACE = $(shell [ "$$($(GO) env CGO_ENABLED)" = 1 ] && echo -race)
# Flags of sluice demo, in make run: make run DEMO="-port 8090"
DEMO ?=

.PHONY: help build run test test-packages test-e2e check e2e lint fuzz soak cost bench bench-smoke bench-micro compare release clean

build: ## the program, ./sluice
	$(GO) build -o sluice .

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: build ## build sluice and start its demo
	@./sluice demo $(DEMO)

# Most of the tests of e2e wait for processes, so they run beside the others.
test: ## all tests, with the race detector where there is a C compiler
	@[ -n "$(RACE)" ] || echo "make test: there is no C compiler, so the tests run without the race detector"
	@$(MAKE) --no-print-directory -j2 -Otarget test-packages test-e2e
	$(GO) test -C bench $(RACE) -shuffle=on ./...
	$(GO) test -C deploy/manual ./...

# Packages are tested in this order, proxy first, since it takes longest.
# The second run is without the race detector: with it pools drop things on purpose, and what one goroutine
# does many times is many times slower.
test-packages:
	$(GO) test $(RACE) -shuffle=on ./proxy ./...
	$(GO) test -run 'Allocate|Reference|Cost|Linear|Bomb|BookIs' ./proxy ./sse ./limiter ./keys ./keys/shared ./config ./history

test-e2e:
	$(GO) test -C e2e $(RACE) -shuffle=on .

# .ci/run has the list. What needs a program that is not installed is skipped, and named.
check: ## everything that must hold before a change lands; installs nothing
	@INSTALL=no sh .ci/run

# OpenAI's and Anthropic's SDKs against the built program. Compiling them takes some minutes and 3 GB the
# first time, so make test and .ci/run leave them out; they run the other tests of e2e.
e2e: ## OpenAI's and Anthropic's SDKs against the program
	$(GO) vet -C e2e ./sdk
	$(GO) test -C e2e -count=1 ./sdk # a cached result would not know of the program

lint: ## gofmt, go vet, staticcheck, go mod tidy
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not gofmt'd: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags cost .
	$(TOOL) staticcheck ./...
	$(TOOL) staticcheck -tags cost .
	$(TOOL) go-errorlint -comparison=false ./...
	$(TOOL) nilerr ./...
	$(TOOL) bodyclose -test=false ./...
	git ls-files '*.go' '*.md' '*.yaml' | xargs $(TOOL) misspell -error
	$(GO) mod tidy -diff
	$(GO) vet -C e2e .
	$(GO) vet -C e2e -tags soak .
	cd e2e && $(TOOL) staticcheck . && $(TOOL) staticcheck -tags soak .
	cd e2e && $(TOOL) go-errorlint -comparison=false . && $(TOOL) nilerr .
	cd e2e && $(GO) mod tidy -diff
	$(GO) vet -C bench ./...
	cd bench && $(GO) mod tidy -diff
	$(GO) vet -C deploy/manual ./...
	cd deploy/manual && $(GO) mod tidy -diff
	$(GO) test -run TestImportsPointDown .

fuzz: ## each fuzz target for FUZZTIME
	$(GO) test -run '^$$' -fuzz '^FuzzRewrite$$' -fuzztime $(FUZZTIME) ./proxy
	$(GO) test -run '^$$' -fuzz '^FuzzPath$$' -fuzztime $(FUZZTIME) ./proxy
	$(GO) test -run '^$$' -fuzz '^FuzzReader$$' -fuzztime $(FUZZTIME) ./sse
	$(GO) test -run '^$$' -fuzz '^FuzzChunks$$' -fuzztime $(FUZZTIME) ./pool
	$(GO) test -run '^$$' -fuzz '^FuzzParse$$' -fuzztime $(FUZZTIME) ./config
	$(GO) test -run '^$$' -fuzz '^FuzzLookup$$' -fuzztime $(FUZZTIME) ./keys

# Clients, ways that fail, and a judge of every answer; and a flood of slow and of large requests
# beside which others go on. The flags are TestSoak's.
soak: ## clients, failures, and a judge of every answer, for SOAKTIME
	$(GO) test -C e2e -v -race -tags soak -run '^TestSoak$$' -timeout 10m . -soaktime $(SOAKTIME)
	$(GO) test -C e2e -count=1 -v -tags soak -run '^TestFlood$$' -timeout 5m . -floodfactor $(FLOODFACTOR)

# An input twice as long costs no more than two and a half times as many instructions: every parser
# and scanner, counted by valgrind.
cost: ## that no parser costs more than in proportion; needs valgrind
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	CGO_ENABLED=0 $(GO) test -c -tags cost -o "$$dir/cost" . && \
	"$$dir/cost" -test.run '^TestCost$$' -test.v -test.timeout 20m # go test alone would leave out the names

# What sluice costs beside nginx, HAProxy and the smallest fasthttp proxy; nginx and haproxy are
# measured where they are installed. The report goes to bench/results.
bench: build ## what sluice costs beside nginx and others, to bench/results
	$(GO) build -C bench -o bench .
	./bench/bench -out bench/results

# A short turn of every scenario, to see that all of it runs and every answer is right.
bench-smoke: build ## a short turn of every scenario of the bench
	$(GO) build -C bench -o bench .
	./bench/bench -smoke

# Go benchmarks beside the code, on one core and on two: a lock that all share would show.
bench-micro: ## Go benchmarks, on one core and on two
	$(GO) test -run '^$$' -bench . -cpu 1,2 $(BENCHED)

# What has changed in the Go benchmarks since another commit: make compare REF=v1
compare: ## the same against another commit: make compare REF=v1
	@test -n "$(REF)" || { echo "REF names no commit: make compare REF=v1"; exit 1; }
	@old=$$(mktemp -d) && trap 'git worktree remove --force "$$old/tree"; rm -rf "$$old"' EXIT && \
	git worktree add --detach "$$old/tree" $(REF) >/dev/null && \
	(cd "$$old/tree" && $(GO) test -run '^$$' -bench . -count $(BENCHCOUNT) $(BENCHED)) >"$$old/old" && \
	$(GO) test -run '^$$' -bench . -count $(BENCHCOUNT) $(BENCHED) >"$$old/new" && \
	$(TOOL) benchstat "$$old/old" "$$old/new"

# dist/: archives for linux on amd64 and arm64, the same bytes wherever they are made, and checksums.
release: ## dist/: archives for Linux, and checksums
	@GO="$(GO)" sh deploy/release.sh

clean: ## remove what was built
	rm -rf sluice bench/bench dist
