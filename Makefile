# hyena-bench. `make help` lists the targets; README.md explains them.
# Data order: datasets -> impls -> bench -> results -> plots -> REPORT.md; objects under build/.

.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := all
SHELL := /bin/bash

# --- what the user may set ---------------------------------------------------------------------------
PRESET ?= quick
MARCH  ?= x86-64-v3
SAN    ?=
B      ?= build$(if $(SAN),-$(SAN))
V      ?=
Q      := $(if $(V),,@)
# The goals that install first hand over to a second make, which compiles on every core.
JOBS   := $(shell nproc 2>/dev/null || echo 1)
SUB    := $(MAKE) --no-print-directory -j$(JOBS)

# --- the toolchain -------------------------------------------------------------------------------------
CC  := gcc
CXX := g++
# OpenBLAS: the OpenMP build by its own folder; the pthread build stays the default even when both are there.
OPENBLAS_LIB := $(firstword $(wildcard /usr/lib/*/openblas-openmp))
OPENBLAS_INC := $(firstword $(wildcard /usr/include/*/openblas-openmp))
WARN   := -Wall -Wextra -Wpedantic -Wshadow -Werror
COMMON := -std=c11 -D_GNU_SOURCE -O3 -march=$(MARCH) -g -fno-omit-frame-pointer -fopenmp -fPIC $(WARN) -MMD -MP
# Contestants: errno and FP traps are not their business; sums are reordered only where a pragma says so.
FAST   := -ffp-contract=fast -fno-math-errno -fno-trapping-math
EXACT  := -ffp-contract=off
LDLIBS := -L$(OPENBLAS_LIB) -Wl,-rpath,$(OPENBLAS_LIB) -lopenblas -ljansson -lsqlite3 -lpcre2-8 -lbenchmark -lstdc++ -lcrypto -lm -ldl -lpthread
INC    := -Iimpls/core $(if $(OPENBLAS_INC),-I$(OPENBLAS_INC))
ifeq ($(SAN),asan)
COMMON += -fsanitize=address,undefined -fno-sanitize-recover=undefined -O1
LDSAN  := -fsanitize=address,undefined
endif

# --- CUDA, if its compiler is there (NVCC= leaves it out). 90a and the like in a file's `// hb-arch:` line replace ARCH
NVCC ?= $(firstword $(wildcard /usr/local/cuda/bin/nvcc) $(shell command -v nvcc 2>/dev/null))
ARCH ?= 80 90
CUDA_HOME := $(if $(NVCC),$(abspath $(dir $(NVCC))..))
CUDA_ON   := $(if $(SAN),,$(NVCC))
gencode    = $(foreach a,$(1),-gencode arch=compute_$(a),code=[sm_$(a)$(if $(findstring a,$(a)),,$(if $(filter $(lastword $(1)),$(a)),$(,)compute_$(a)))])
, := ,
NVFLAGS := -std=c++20 -O3 -lineinfo -cudart shared -shared -Xcompiler -fPIC,-fvisibility=hidden,-Wall,-Wextra,-Wno-missing-field-initializers,-Werror \
    -Werror all-warnings -Xlinker -rpath,$(CUDA_HOME)/lib64,-rpath,'$$ORIGIN/../lib'

# --- sources, by wildcard -----------------------------------------------------------------------------------
PLUG_SRC := $(wildcard impls/longconv/*.c impls/attention/*.c impls/hyena/*.c impls/mha/*.c)
CU_SRC   := $(if $(CUDA_ON),$(wildcard impls/longconv/*.cu impls/attention/*.cu))
DEV_CU   := $(if $(CUDA_ON),$(wildcard impls/device/cuda*.cu))
PLUG_SO  := $(patsubst %,$(B)/impls/%.so,$(basename $(notdir $(PLUG_SRC) $(CU_SRC)))) $(if $(DEV_CU),$(B)/devices/cuda.so)
MAIN_SRC := $(wildcard bench/*.c bench/lm/*.c bench/verify/*.c bench/choose/*.c bench/guard/*.c datasets/*.c impls/core/*.c impls/device/*.c impls/reference/*.c)
MAIN_OBJ := $(MAIN_SRC:%.c=$(B)/obj/%.o) $(B)/obj/bench/gbench.o
LIB_OBJ  := $(filter-out $(B)/obj/bench/main.o,$(MAIN_OBJ))
TEST_SRC := $(wildcard tests/test_*.c)
TEST_BIN := $(TEST_SRC:tests/%.c=$(B)/tests/%)
# The shelf of wrong implementations: one plug-in per name in a file's `// defects:` line.
wrong     = $(foreach d,$(shell sed -n 's|^// defects:||p' tests/wrong/$(1).c),$(B)/tests/wrong/$(1)_$(d).so)
WRONG_SO := $(call wrong,longconv) $(call wrong,attention)

.PHONY: all help deps
all: deps ## build the program and every implementation (installs what is missing first)
	$(Q)$(SUB) $(B)/hyena-bench plugins library
	$(if $(CUDA_ON),,@echo "  optional, left out: CUDA (no nvcc found; NVCC=/path/to/nvcc names one)")

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

# --- dependencies ------------------------------------------------------------------------------------------------
deps: ## install missing Debian packages (elsewhere: print the list)
	$(Q)bash bench/deps.sh

# --- the program ---------------------------------------------------------------------------------------------------
BUILD_ID := $(shell git describe --always --dirty 2>/dev/null || echo unversioned)
$(B)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CC    $<")
	$(Q)$(CC) $(COMMON) $(if $(filter impls/reference/%,$<),$(EXACT),$(FAST)) $(INC) -c $< -o $@

# The build's identity: rewritten only when it changes, so that nothing else is rebuilt for it.
$(B)/build_id.h: FORCE
	@mkdir -p $(@D)
	@printf '#define HB_GIT "%s"\n#define HB_CFLAGS "%s"\n' "$(BUILD_ID)" "-O3 -march=$(MARCH) $(FAST)$(if $(SAN), $(SAN))" > $@.tmp
	@cmp -s $@.tmp $@ && rm $@.tmp || mv $@.tmp $@
FORCE:
$(B)/obj/bench/env.o: INC += -I$(B)
$(B)/obj/bench/env.o: $(B)/build_id.h

$(B)/obj/bench/gbench.o: bench/gbench.cc Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo "  CXX   $<")
	$(Q)$(CXX) -std=c++17 -O2 -fPIC -Wall -Wextra -Werror -MMD -MP $(LDSAN) -c $< -o $@

$(B)/hyena-bench: $(MAIN_OBJ)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -fopenmp $(LDSAN) -o $@ $^ $(LDLIBS)

# --- implementations: one file, one plug-in. What a file needs beyond libc it says itself, in lines
#     // hb-link: -lfftw3f            (linker)      and      // hb-cflags: -funroll-loops      (compiler)
.PHONY: plugins
plugins: $(PLUG_SO)
vpath %.c impls/longconv impls/attention impls/hyena impls/mha
$(B)/impls/%.so: %.c Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo "  PLUG  $<")
	$(Q)$(CC) $(COMMON) $(FAST) -fvisibility=hidden -shared $(INC) $$(sed -n 's|^// hb-cflags:||p' $<) $(LDSAN) \
	    -MF $(@:.so=.d) -o $@ $< -L$(OPENBLAS_LIB) -Wl,-rpath,$(OPENBLAS_LIB) $$(sed -n 's|^// hb-link:||p' $<) -lm

# What nvcc is asked for: a file's own architectures or ARCH, its own flags and libraries.
nvflags = $(NVFLAGS) $(INC) $(call gencode,$(or $(shell sed -n 's|^// hb-arch:||p' $(1)),$(ARCH))) $(shell sed -n 's|^// hb-nvcc:||p' $(1))
vpath %.cu impls/longconv impls/attention
$(B)/impls/%.so: %.cu Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo "  NVCC  $<")
	$(Q)$(NVCC) $(call nvflags,$<) -MMD -MP -MF $(@:.so=.d) -o $@ $< $$(sed -n 's|^// hb-link:||p' $<)

$(B)/obj/%.cu.o: %.cu Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo "  NVCC  $<")
	$(Q)$(NVCC) $(filter-out -shared,$(call nvflags,$<)) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
$(B)/devices/cuda.so: $(DEV_CU:%=$(B)/obj/%.o)
	@mkdir -p $(@D)
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(NVCC) $(call nvflags,$(DEV_CU)) -o $@ $^ -lcublasLt

# --- the library that chooses: the program's own table, prediction and choice, and a host of its own ------------------
SO_OBJ := $(patsubst %,$(B)/obj/bench/%.o,choose/table choose/predict choose/choose choose/lib/lib point work cli stats)
.PHONY: library
library: $(B)/libhyena_bench.so
$(B)/libhyena_bench.so: $(SO_OBJ) bench/choose/lib/exports.map
	$(if $(Q),@echo "  LD    $@")
	$(Q)$(CC) -shared $(LDSAN) -Wl,-soname,libhyena_bench.so.0 -Wl,--version-script,bench/choose/lib/exports.map -Wl,-z,defs \
	    -o $@ $(SO_OBJ) -ljansson -lm -ldl -lpthread

-include $(B)/obj/bench/choose/lib/lib.d
-include $(MAIN_OBJ:.o=.d) $(PLUG_SO:.so=.d) $(DEV_CU:%.cu=$(B)/obj/%.cu.d) $(TEST_BIN:=.d) $(WRONG_SO:.so=.d)

# --- data, measurements, report ------------------------------------------------------------------------------------
.PHONY: datasets roofline measure train figures verify report publish gpu-bundle
HB := $(B)/hyena-bench
BUDGET := $(if $(filter quick,$(PRESET)),--budget-s 270)

datasets: deps ## fetch and check the data sets (SETS="..." for others than the default)
	$(Q)bash datasets/fetch.sh $(SETS)

SWEEP := $(HB) sweep bench/sweeps/$(PRESET).json --refine --resume $(BUDGET)
TRAIN := $(HB) train --suite bench/lm/suites/$(PRESET).json --resume $(BUDGET)

roofline: all ## measure this machine's peaks
	$(Q)$(HB) roofline

measure: all ## run the sweep of PRESET, after the roofline
	$(Q)$(HB) roofline
	$(Q)$(SWEEP)

train: all datasets ## train the language models of PRESET
	$(Q)$(TRAIN)

figures: all ## redraw every figure from the results (measures nothing)
	$(Q)$(HB) plot

verify: all ## judge the published claims by the results; verdicts into build/claims.json (measures nothing)
	$(Q)$(HB) verify --out $(B)/claims.json

report: all datasets ## everything: install, build, measure, train, plot, write build/report/REPORT.md (PRESET=quick|full)
	$(Q)$(HB) roofline
	$(Q)$(SWEEP)
	$(Q)$(TRAIN)
	$(Q)$(HB) crossover
	$(Q)rm -rf $(B)/report.new && $(HB) report --out $(B)/report.new >/dev/null
	$(Q)rm -rf $(B)/report && mv $(B)/report.new $(B)/report && echo "$(B)/report/REPORT.md"

gpu-bundle: all ## pack build/gpu-bundle, one folder that runs on a GPU machine (DATA="files" to take along)
	$(Q)bash bench/gpu_bundle.sh $(B) $(DATA)

# The program finds its plug-ins beside itself: both lie in lib/hyena-bench, bin/ has a link.
PREFIX ?= /usr/local
LIBDIR := $(DESTDIR)$(PREFIX)/lib
.PHONY: install
install: $(B)/hyena-bench plugins library ## install program, library, header, pkg-config file and table of choices (PREFIX, DESTDIR)
	$(Q)install -d $(LIBDIR)/pkgconfig $(LIBDIR)/hyena-bench/impls $(addprefix $(DESTDIR)$(PREFIX)/,bin include share/hyena-bench)
	$(Q)install -m 755 $(B)/libhyena_bench.so $(LIBDIR)/libhyena_bench.so.0
	$(Q)ln -sf libhyena_bench.so.0 $(LIBDIR)/libhyena_bench.so
	$(Q)install -m 644 bench/choose/hyena_bench.h $(DESTDIR)$(PREFIX)/include/
	$(Q)sed 's|@PREFIX@|$(PREFIX)|' bench/choose/lib/hyena_bench.pc.in > $(LIBDIR)/pkgconfig/hyena_bench.pc
	$(Q)install -m 755 $(B)/hyena-bench $(LIBDIR)/hyena-bench/
	$(Q)install -m 755 $(B)/impls/*.so $(LIBDIR)/hyena-bench/impls/
	$(Q)! compgen -G "$(B)/devices/*.so" >/dev/null || install -D -m 755 -t $(LIBDIR)/hyena-bench/devices $(B)/devices/*.so
	$(Q)ln -sf ../lib/hyena-bench/hyena-bench $(DESTDIR)$(PREFIX)/bin/hyena-bench
	$(Q)$(HB) choose --table $(DESTDIR)$(PREFIX)/share/hyena-bench/choices.json

# Two build folders; HEAD is this one unless given. Verdicts go to build/guard/.
.PHONY: compare compare-summary selftest guard-deps
HEAD ?= $(B)
TIME ?= 60s
compare: all ## is HEAD=build slower than BASE=../old/build? (TIME=60s COMPARE="--strict ...")
	$(Q)[ -n "$(BASE)" ] || { echo "make compare: BASE=DIR, the build folder of the old version, is missing" >&2; exit 2; }
	$(Q)mkdir -p $(B)/guard
	$(Q)$(HB) compare --base $(BASE) --head $(HEAD) --budget $(TIME) \
	    --json $(B)/guard/compare.json --markdown $(B)/guard/compare.md --junit $(B)/guard/compare.xml $(COMPARE)

compare-summary: ## the verdicts of the last compare, in Markdown
	@cat $(B)/guard/compare.md 2>/dev/null || echo "There are no verdicts: compare did not end."

guard-deps: ## install valgrind, with which compare counts instructions
	$(Q)bash bench/deps.sh valgrind

selftest: all ## how often compare alarms for nothing on this machine, and what it finds (half an hour; SELFTEST="...")
	$(Q)mkdir -p $(B)/guard
	$(Q)$(HB) selftest --pool $(B)/guard/pool.json --json $(B)/guard/selftest.json --markdown $(B)/guard/selftest.md $(SELFTEST)

publish: ## copy build/report and its results into REPORT.md, plots/ and results/
	$(Q)bash bench/publish.sh $(B)

# --- tests ---------------------------------------------------------------------------------------------------------------
.PHONY: test check test-bins clean
$(B)/tests/%: tests/%.c $(LIB_OBJ) Makefile
	@mkdir -p $(@D)
	$(if $(Q),@echo "  TEST  $<")
	$(Q)$(CC) $(COMMON) $(FAST) $(INC) -Wno-pedantic $(LDSAN) -MF $@.d -o $@ $< $(LIB_OBJ) -lcriterion $(LDLIBS)

$(B)/tests/wrong/%.so: tests/wrong/longconv.c tests/wrong/attention.c Makefile
	@mkdir -p $(@D)
	$(Q)$(CC) $(COMMON) $(FAST) -fvisibility=hidden -shared $(INC) -DDEFECT=$(patsubst attention_%,%,$(patsubst longconv_%,%,$*)) \
	    $(LDSAN) -MF $(@:.so=.d) -o $@ tests/wrong/$(firstword $(subst _, ,$*)).c -lm

test-bins: $(TEST_BIN) $(WRONG_SO)

test: all datasets ## build and run every test, then the same under sanitizers
	$(Q)$(SUB) test-bins
	$(Q)$(SUB) SAN=asan build-asan/hyena-bench plugins test-bins
	$(Q)bash tests/run.sh build build-asan

check: all datasets ## the tests of the plain build alone
	$(Q)$(SUB) test-bins
	$(Q)bash tests/run.sh build

clean: ## remove what was built (results under build/ too)
	rm -rf build build-asan
