# devkey's steps. Each first sees to the packages that it needs; PACKAGES= leaves the system alone
# and says what is missing instead.

PREFIX   ?= /usr/local
CARGO    ?= cargo
PACKAGES ?= --install
SECONDS  ?= 60
# Without a compiler yet, by what is there.
TRIPLET  ?= $(shell $(CC) -print-multiarch 2>/dev/null || (cd /usr/lib && ls -d "$$(uname -m)-linux-gnu") 2>/dev/null)
LIBDIR   ?= $(PREFIX)/lib$(addprefix /,$(TRIPLET))

# Where Cargo leaves a release, by the same variables that it heeds.
built   = $(or $(CARGO_TARGET_DIR),target)$(addprefix /,$(CARGO_BUILD_TARGET))/release
devkeyd = $(PREFIX)/libexec/devkey/devkeyd
module  = $(LIBDIR)/pkcs11/devkey-pkcs11.so
# Of systemd: read below /usr and /usr/local.
units   = $(PREFIX)/lib/systemd/system
users   = $(PREFIX)/lib/sysusers.d/devkey.conf
files   = $(PREFIX)/lib/tmpfiles.d/devkey.conf
manual  = $(PREFIX)/share/man
# zsh looks for those of Debian's packages in another place than for an administrator's.
bash_completions = $(PREFIX)/share/bash-completion/completions
zsh_completions  = $(PREFIX)/share/zsh/$(if $(filter /usr,$(PREFIX)),vendor-completions,site-functions)
fish_completions = $(PREFIX)/share/fish/vendor_completions.d
presets = $(PREFIX)/lib/systemd/system-preset/90-devkey.preset
rules   = $(PREFIX)/lib/udev
services = devkeyd.service devkeyd-device@.service devkey-sshd-agent.service devkey-renew.service
sockets  = devkeyd.socket devkey-sshd-agent.socket devkey-renew.timer

# A rustup that the login shell has not put into PATH, as under sudo.
export PATH := $(PATH):$(HOME)/.cargo/bin

needs = sh packaging/prerequisites $(PACKAGES)

# The module is built by itself: in one build with the command, Cargo would give both the same
# features, and libtss2 must not enter the programs that load the module.
cargo_build = $(CARGO) build --locked $(1) -p devkey && $(CARGO) build --locked $(1) -p devkey-pkcs11

.PHONY: help build release man demo deb test vm-test test-deb fuzz bench puf-data lint install install-units install-man uninstall
.NOTPARALLEL:

help:
	@echo 'make build    the command, the service and the module, in target/debug'
	@echo 'make man      the manual and the completions of shells, in target/man'
	@echo 'make demo     ssh, TLS and nginx with keys of a file, a TPM and a PUF, in a temporary directory'
	@echo 'make test     everything, with the real clients and a software TPM'
	@echo 'make vm-test  the packages in virtual machines with a TPM, a PUF and systemd; power cuts; downloads 0.5 GB'
	@echo 'make deb      Debian packages, into target/deb'
	@echo 'make test-deb what is in them, and how they are installed, upgraded and purged; as root, in chroots'
	@echo 'make fuzz     arbitrary bytes to all that is read from elsewhere, SECONDS=$(SECONDS) for each kind'
	@echo 'make bench    speed, beside SoftHSM and tpm2-pkcs11'
	@echo 'make puf-data the fuzzy extractor on every window of readings of real chips, see tests/puf_data.rs'
	@echo 'make lint     format, clippy, licences'
	@echo 'make install  into PREFIX ($(PREFIX)), below DESTDIR ($(or $(DESTDIR),/)); uninstall takes it out again'

build:
	@$(needs) build
	@$(call cargo_build)

# The programs look for each other where `make install` with the same PREFIX puts them.
release: export DEVKEY_DEVKEYD_PATH = $(devkeyd)
release: export DEVKEY_MODULE_PATH = $(module)
release:
	@$(needs) build
	@$(call cargo_build,--release)

# From the release that is there, or another build: COMMAND=target/debug/devkey.
COMMAND ?= $(built)/devkey
PAGES   ?= target/man
man:
	@$(needs) man
	@[ -e $(COMMAND) ] || $(MAKE) --no-print-directory release
	@packaging/manual $(COMMAND) $(PAGES)

demo:
	@$(needs) demo
	@[ -e target/debug/devkey ] || echo 'Building; the first time takes some minutes.'
	@$(call cargo_build,--quiet)
	@packaging/demo

test:
	@$(needs) test
	sh tests/openssh/fetch
	$(call cargo_build)
	$(CARGO) test --locked -p devkey-pkcs11
	$(CARGO) test --locked -p devkey --no-run
	@[ "$$(id -u)" = 0 ] || sudo --validate || echo 'without root or sudo three tests of the command will fail'
	$(CARGO) test --locked -p devkey

vm-test: deb
	@$(needs) vm
	$(call cargo_build)
	sh tests/vm/run

deb:
	@$(needs) deb
	@CARGO='$(CARGO)' sh packaging/deb

test-deb: deb
	@$(needs) debtest
	sh tests/deb/run

# Sanitizers are not for stable compilers; this variable has one take them all the same.
fuzz: export RUSTC_BOOTSTRAP = 1
fuzz:
	@$(needs) build
	@$(CARGO) fuzz --version >/dev/null 2>&1 || { echo 'cargo-fuzz is missing; install it with: cargo install --locked cargo-fuzz'; exit 1; }
	cd fuzz && for kind in $$($(CARGO) fuzz list --fuzz-dir .); do \
	  mkdir -p corpus/$$kind && $(CARGO) fuzz run --fuzz-dir . $$kind corpus/$$kind seeds/$$kind -- \
	    -max_total_time=$(SECONDS) -max_len=16384 -timeout=10 -print_final_stats=1 || exit 1; \
	done

bench:
	@$(needs) bench
	@$(call cargo_build,--release)
	$(CARGO) bench --locked -p devkey

puf-data: export DEVKEY_REQUIRE_PUF_DATA = 1
puf-data: export DEVKEY_PUF_SWEEP = 1
puf-data:
	@$(needs) build
	$(CARGO) test --locked --release -p devkey --test puf_data -- --nocapture

lint:
	@$(needs) lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny check bans licenses sources; \
	else echo 'cargo deny is not installed, so licences and sources went unchecked; install it with: cargo install --locked cargo-deny'; fi

# Under sudo the build is left to the user who called: root's files in target/ would bar the next one.
install:
	@$(if $(SUDO_USER),sudo --set-home --user $(SUDO_USER)) $(MAKE) --no-print-directory release man \
		PREFIX='$(PREFIX)' LIBDIR='$(LIBDIR)' CARGO='$(CARGO)' PACKAGES='$(PACKAGES)'
	install -D -m 755 $(built)/devkey $(DESTDIR)$(PREFIX)/bin/devkey
	install -D -m 755 $(built)/devkeyd $(DESTDIR)$(devkeyd)
	install -D -m 644 $(built)/libdevkey_pkcs11.so $(DESTDIR)$(module)
	@$(MAKE) --no-print-directory install-units install-man PREFIX='$(PREFIX)'
	@[ -n '$(DESTDIR)' ] || echo 'The key service of the system: docs/service.md says how to switch it on.'

# The units of the key service, of sshd's host key and of renewal, with the users and directories that they
# need, and the rules for devices. Nothing is started, and sshd is not touched.
install-units:
	install -d $(DESTDIR)$(units)
	install -m 644 $(addprefix packaging/systemd/,$(sockets)) $(DESTDIR)$(units)
	for unit in $(services); do \
	  sed 's,/usr/libexec/devkey/devkeyd,$(devkeyd),; s,/usr/bin/devkey,$(PREFIX)/bin/devkey,' \
	    packaging/systemd/$$unit >$(DESTDIR)$(units)/$$unit && chmod 644 $(DESTDIR)$(units)/$$unit || exit 1; \
	done
	install -D -m 644 packaging/systemd/sysusers.conf $(DESTDIR)$(users)
	install -D -m 644 packaging/systemd/tmpfiles.conf $(DESTDIR)$(files)
	install -D -m 644 packaging/systemd/devkey.preset $(DESTDIR)$(presets)
	install -d $(DESTDIR)$(rules)/rules.d $(DESTDIR)$(rules)/hwdb.d
	install -m 644 udev/*.rules $(DESTDIR)$(rules)/rules.d
	install -m 644 udev/*.hwdb $(DESTDIR)$(rules)/hwdb.d

install-man:
	for page in $(wildcard $(PAGES)/man*/*); do \
	  to=$(DESTDIR)$(manual)/$${page#$(PAGES)/} && install -D -m 644 /dev/null $$to && \
	  sed 's,/usr/libexec/devkey/devkeyd,$(devkeyd),' $$page >$$to || exit 1; \
	done
	install -D -m 644 $(PAGES)/completions/devkey $(DESTDIR)$(bash_completions)/devkey
	install -D -m 644 $(PAGES)/completions/_devkey $(DESTDIR)$(zsh_completions)/_devkey
	install -D -m 644 $(PAGES)/completions/devkey.fish $(DESTDIR)$(fish_completions)/devkey.fish

# Users, groups and the store stay: who has a number keeps it, and there may be keys.
uninstall:
	rm -f $(DESTDIR)$(PREFIX)/bin/devkey $(DESTDIR)$(devkeyd) $(DESTDIR)$(module)
	rm -f $(addprefix $(DESTDIR)$(units)/,$(services) $(sockets))
	rm -f $(DESTDIR)$(users) $(DESTDIR)$(files) $(DESTDIR)$(presets)
	rm -f $(addprefix $(DESTDIR)$(rules)/rules.d/,$(notdir $(wildcard udev/*.rules)))
	rm -f $(addprefix $(DESTDIR)$(rules)/hwdb.d/,$(notdir $(wildcard udev/*.hwdb)))
	rm -f $(addprefix $(DESTDIR)$(manual)/,man1/devkey.1 man1/devkey-*.1 man5/devkey.toml.5 man7/devkey-pkcs11.7 man8/devkeyd.8)
	rm -f $(DESTDIR)$(bash_completions)/devkey $(DESTDIR)$(zsh_completions)/_devkey $(DESTDIR)$(fish_completions)/devkey.fish
	rmdir $(DESTDIR)$(dir $(devkeyd))
