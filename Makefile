# make run needs Go, a POSIX shell and curl; make test Go and, for the race detector, a C
# compiler.

GO ?= go
# What only lint and compare need is in a module of its own.
TOOL = $(GO) tool -modfile=tools/go.mod
# Of each fuzz target, in make fuzz: a time, or a count such as 20000x.
FUZZTIME ?= 10s
# What has Go benchmarks beside it, and how often make compare runs them.
BENCHED = ./limiter ./keys ./metrics ./sse ./pool ./proxy
BENCHCOUNT ?= 6
# Of make soak.
SOAKTIME ?= 1m
# Of make soak: how much a flood may raise the p99 of others.
FLOODFACTOR ?= 2

.PHONY: build run test e2e lint fuzz soak cost bench bench-smoke bench-micro compare release clean

build:
	$(GO) build -o sluice .

run: build
	@./sluice demo $(DEMO)

# The second run is without the race detector: with it pools drop things on purpose, and what one goroutine
# does many times is many times slower.
test:
	$(GO) test -race -shuffle=on ./...
	$(GO) test -run 'Allocate|Reference' ./proxy ./sse ./limiter ./keys
	$(GO) test -C bench -race -shuffle=on ./...

# OpenAI's and Anthropic's SDKs against the built program. They are in a module of their own; compiling
# them takes some minutes and 3 GB the first time, so .ci/run leaves them out.
e2e:
	cd e2e && $(GO) mod tidy -diff && $(GO) vet . && $(GO) test .

lint:
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "not gofmt'd: $$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags soak,cost .
	$(TOOL) staticcheck ./...
	$(TOOL) staticcheck -tags soak,cost .
	$(TOOL) go-errorlint -comparison=false ./...
	$(TOOL) nilerr ./...
	$(TOOL) bodyclose -test=false ./...
	git ls-files '*.go' '*.md' '*.yaml' | xargs $(TOOL) misspell -error
	$(GO) mod tidy -diff
	$(GO) vet -C bench ./...
	cd bench && $(GO) mod tidy -diff
	$(GO) test -run TestImportsPointDown .

fuzz:
	$(GO) test -run '^$$' -fuzz '^FuzzRewrite$$' -fuzztime $(FUZZTIME) ./proxy
	$(GO) test -run '^$$' -fuzz '^FuzzPath$$' -fuzztime $(FUZZTIME) ./proxy
	$(GO) test -run '^$$' -fuzz '^FuzzReader$$' -fuzztime $(FUZZTIME) ./sse
	$(GO) test -run '^$$' -fuzz '^FuzzChunks$$' -fuzztime $(FUZZTIME) ./pool
	$(GO) test -run '^$$' -fuzz '^FuzzParse$$' -fuzztime $(FUZZTIME) ./config
	$(GO) test -run '^$$' -fuzz '^FuzzLookup$$' -fuzztime $(FUZZTIME) ./keys

# Clients, ways that fail, and a judge of every answer; and a flood of slow and of large requests
# beside which others go on. The flags are TestSoak's.
soak:
	$(GO) test -v -race -tags soak -run '^TestSoak$$' -timeout 10m . -soaktime $(SOAKTIME)
	$(GO) test -count=1 -v -tags soak -run '^TestFlood$$' -timeout 5m . -floodfactor $(FLOODFACTOR)

# An input twice as long costs no more than two and a half times as many instructions: every parser
# and scanner, counted by valgrind.
cost:
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && \
	CGO_ENABLED=0 $(GO) test -c -tags cost -o "$$dir/cost" . && \
	"$$dir/cost" -test.run '^TestCost$$' -test.v -test.timeout 20m # go test alone would leave out the names

# What sluice costs beside nginx, HAProxy and the smallest fasthttp proxy; nginx and haproxy are
# measured where they are installed. The report goes to bench/results.
bench: build
	$(GO) build -C bench -o bench .
	./bench/bench -out bench/results

# A short turn of every scenario, to see that all of it runs and every answer is right.
bench-smoke: build
	$(GO) build -C bench -o bench .
	./bench/bench -smoke

# Go benchmarks beside the code, on one core and on two: a lock that all share would show.
bench-micro:
	$(GO) test -run '^$$' -bench . -cpu 1,2 $(BENCHED)

# What has changed in the Go benchmarks since another commit: make compare REF=v1
compare:
	@test -n "$(REF)" || { echo "REF names no commit: make compare REF=v1"; exit 1; }
	@old=$$(mktemp -d) && trap 'git worktree remove --force "$$old/tree"; rm -rf "$$old"' EXIT && \
	git worktree add --detach "$$old/tree" $(REF) >/dev/null && \
	(cd "$$old/tree" && $(GO) test -run '^$$' -bench . -count $(BENCHCOUNT) $(BENCHED)) >"$$old/old" && \
	$(GO) test -run '^$$' -bench . -count $(BENCHCOUNT) $(BENCHED) >"$$old/new" && \
	$(TOOL) benchstat "$$old/old" "$$old/new"

# dist/: archives for linux on amd64 and arm64, the same bytes wherever they are made, and checksums.
release:
	@GO="$(GO)" sh deploy/release.sh

clean:
	rm -rf sluice bench/bench dist
