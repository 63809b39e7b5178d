# devkey's steps. Each first sees to the packages that it needs; PACKAGES= leaves the system alone
# and says what is missing instead.

PREFIX   ?= /usr/local
CARGO    ?= cargo
PACKAGES ?= --install
TRIPLET  ?= $(shell $(CC) -print-multiarch 2>/dev/null)

# A rustup that the login shell has not put into PATH, as under sudo.
export PATH := $(PATH):$(HOME)/.cargo/bin

needs = sh packaging/prerequisites $(PACKAGES)

# The module is built by itself: in one build with the command, Cargo would give both the same
# features, and libtss2 must not enter the programs that load the module.
cargo_build = $(CARGO) build --locked $(1) -p devkey && $(CARGO) build --locked $(1) -p devkey-pkcs11

.PHONY: help build release demo test bench lint install
.NOTPARALLEL:

help:
	@echo 'make build    the command, the service and the module, in target/debug'
	@echo 'make demo     ssh and TLS logins with a file key and with a TPM key, in a temporary directory'
	@echo 'make test     everything, with the real clients and a software TPM'
	@echo 'make bench    speed, beside SoftHSM and tpm2-pkcs11'
	@echo 'make lint     format, clippy, licences'
	@echo 'make install  into PREFIX ($(PREFIX)), below DESTDIR ($(or $(DESTDIR),/)); builds a release if there is none'

build:
	@$(needs) build
	@$(call cargo_build)

release:
	@$(needs) build
	@$(call cargo_build,--release)

demo:
	@$(needs) demo
	@$(call cargo_build,--quiet)
	@packaging/demo

test:
	@$(needs) test
	$(call cargo_build)
	$(CARGO) test --locked -p devkey-pkcs11
	$(CARGO) test --locked -p devkey

bench:
	@$(needs) bench
	@$(call cargo_build,--release)
	$(CARGO) bench --locked -p devkey

lint:
	@$(needs) lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check bans licenses sources; \
	else echo 'cargo deny is not installed, so licences and sources went unchecked; install it with: cargo install --locked cargo-deny'; fi

target/release/devkey target/release/devkeyd target/release/libdevkey_pkcs11.so:
	@$(MAKE) --no-print-directory release

install: target/release/devkey target/release/devkeyd target/release/libdevkey_pkcs11.so
	install -D -m 755 target/release/devkey $(DESTDIR)$(PREFIX)/bin/devkey
	install -D -m 755 target/release/devkeyd $(DESTDIR)$(PREFIX)/libexec/devkey/devkeyd
	install -D -m 644 target/release/libdevkey_pkcs11.so $(DESTDIR)$(PREFIX)/lib/$(TRIPLET)/pkcs11/devkey-pkcs11.so
