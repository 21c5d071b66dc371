# make help lists the targets.
SHELL := /bin/bash
FUZZTIME ?= 10s
PREFIX ?= /usr/local
BENCH ?=
sbin = $(PREFIX)/sbin
man = $(PREFIX)/share/man
systemd = /usr/lib/systemd/system

.DEFAULT_GOAL := help
.PHONY: help deps build install image image-lock manifests demo test unit packaging conformance kernel test-full e2e e2e-upstream e2e-figures cluster-up cluster-down bench lint fuzz lab clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps:
	@hack/install-deps

# The version that the binary reports is what go build reads from git.
build: ## static bin/csi-ietd
	CGO_ENABLED=0 go build -trimpath -buildvcs=auto -ldflags '-s -w' -o bin/csi-ietd ./cmd/csi-ietd

install: build ## ietd and ietadm with manual pages and a systemd unit (PREFIX, DESTDIR; root)
	install -D -m 755 bin/csi-ietd $(DESTDIR)$(sbin)/csi-ietd
	ln -sf csi-ietd $(DESTDIR)$(sbin)/ietd
	ln -sf csi-ietd $(DESTDIR)$(sbin)/ietadm
	install -D -m 644 -t $(DESTDIR)$(man)/man8 docs/man/ietd.8 docs/man/ietadm.8
	install -D -m 644 -t $(DESTDIR)$(man)/man5 docs/man/ietd.conf.5
	install -d $(DESTDIR)$(systemd)
	sed 's|@SBINDIR@|$(sbin)|' deploy/systemd/ietd.service >$(DESTDIR)$(systemd)/ietd.service

image: ## bin/image: OCI archives of both images, and what is in them (PLATFORMS, VERSION)
	hack/image/build

image-lock: ## renew the pinned Debian packages of the node's image
	deploy/images/node/rootfs --update

manifests: ## deploy/kubernetes from the chart
	hack/chart/generate

demo: deps ## a volume's whole life on real kernels, step by step (root)
	@go run ./test/e2e/demo

test: unit packaging conformance kernel ## unit tests with the race detector, chart and images, other people's initiators, the lab (root)

unit: deps
	go test -race ./pkg/... ./cmd/... ./test/e2e/agent/... ./test/e2e/lab/... ./test/e2e/writer/... ./test/bench/...

# The chart against four releases of Kubernetes, the manifests in step with it,
# and the images' archives.
packaging: deps
	cd hack/image && go test ./...
	cd hack/chart && go test -timeout 20m ./...

conformance: deps
	go test -count=1 -timeout 10m -v ./test/e2e/conformance

# One package has one lab; the lab's tests boot real kernels, so the race
# detector would only slow the harness.
kernel: deps
	go test -count=1 -timeout 40m -v ./test/e2e/kernel

# What make test samples, in full: every negotiation of the kernel's initiator.
test-full: test ## make test, and what it takes a sample of in full (half an hour more; root)
	go test -count=1 -timeout 2h -v -run '^TestNegotiation$$' ./test/e2e/kernel -full

e2e: deps ## the suite on a Kubernetes cluster in the lab (root; builds Kubernetes the first time)
	test/e2e/run

e2e-upstream: deps ## all that Kubernetes' own suite for storage drivers asks of us (root)
	TAGS=upstream TIMEOUT=5h test/e2e/run -test.run TestUpstreamWhole

# The peer, Kubernetes' own iscsi source, runs iscsiadm where kubelet is.
e2e-figures: deps ## the figures of docs/kubernetes.md (root)
	ISOLATE=false TAGS=figures TIMEOUT=3h test/e2e/run -test.run TestFigures

# The cluster's own process is bin/cluster/cluster serve; see test/e2e/README.md.
cluster-up: deps ## a Kubernetes cluster in the lab, with a shell to use it (root; builds Kubernetes the first time)
	@test/e2e/run up

cluster-down: ## end that cluster
	@bin/cluster/cluster down

# Built and then run, since go run would leave the targets behind when it is killed.
bench: build ## ietd beside a null target and tgt, case by case; docs/performance.md (BENCH='-secs 1', root)
	@hack/install-deps bench
	go build -o bin/bench ./test/bench
	bin/bench $(BENCH)

lint: deps ## formatting, static checks, import rules, shell scripts
	hack/golangci-lint run
	cd hack/image && ../golangci-lint run --config ../../.golangci.yml
	cd hack/chart && ../golangci-lint run --config ../../.golangci.yml
	hack/lint

fuzz: ## every fuzz target for FUZZTIME (10s)
	hack/fuzz $(FUZZTIME)

lab: deps ## a shell in a guest with the target and the node plugin running (root)
	@go run ./test/e2e/demo -shell

clean: ## remove what was built
	rm -rf bin
