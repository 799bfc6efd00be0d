# Commands that stay; see README.md. Everything they need is installed by themselves.
SHELL := /bin/bash
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/stepaudio
export UV_LINK_MODE ?= hardlink
UV := $(or $(shell command -v uv),$(CACHE)/uv/bin/uv)

# Half of what a process of vLLM's costs is to compile what it imports: that is kept, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

# Four workers for two cores: what talks to an API server mostly waits. What takes longest begins first.
WORKERS := -n 4 --dist loadscope --no-loadscope-reorder
# The decoders come first: in processes that have been through the other tests theirs took eight times as long.
PURE := tests/parity $(addprefix tests/unit/,train engine rollouts) tests/contract/vllm_step1 tests/contract/vllm_arguments
PURE += $(addprefix tests/unit/,audio checkpoints codec evaluate operator_core tokenizer tts vllm_plugin voices)
OTHERS := $(addprefix tests/,integration/pods integration/groups integration/operator integration/gateway contract unit)
PYTEST = OMP_NUM_THREADS=1 $(UV) run --no-sync pytest --durations=15
# Operators and pods that are waited for leave the cores idle now and then: what looks at no clock takes them, and as
# much else as its nice value leaves. (Linux weighs sessions where its scheduler groups by them, then what is in them.)
in_pauses = setsid -w nice -n $(1) sh -c 'echo $(1) 2>/dev/null >/proc/self/autogroup; exec "$$@"' --

.PHONY: up down test test-in-time test-processes images test-nodes test-pure search lint bench-operator bench-rollouts bench-faults bench-speech image-cuda lock-images

up: $(UV)
	$(UV) run --frozen --package stepaudio-cluster python -m stepaudio_cluster.make_up

down: $(UV)
	$(UV) run --frozen --package stepaudio-cluster stepaudio-cluster down

test: lint
	@echo "What waits for processes, then for pods on the node; in its pauses what only computes, told when it ends."
	$(MAKE) --no-print-directory --jobs=3 --output-sync=target test-in-time test-pure

test-in-time:
	$(MAKE) --no-print-directory --output-sync=none test-processes images
	$(MAKE) --no-print-directory --output-sync=none test-nodes

test-processes:
	$(PYTEST) $(WORKERS) $(addprefix --ignore=,$(PURE)) $(OTHERS)

test-nodes:
	$(PYTEST) tests/integration/cluster tests/e2e

test-pure:
	$(call in_pauses,19) env $(PYTEST) -n 2 --dist loadscope --no-loadscope-reorder --timeout=1800 $(PURE)

# The property tests with other examples than those of `make test`, again and again: `make search ROUNDS=100`.
ROUNDS := 10
search: $(UV)
	$(UV) sync --frozen --quiet
	for round in $$(seq $(ROUNDS)); do $(PYTEST) -x -n 2 -m hypothesis --hypothesis-profile=search tests/unit || exit; done

# Ready when the node's tests begin; where they cannot be built, those say why and are skipped.
images:
	-@$(call in_pauses,10) $(UV) run --no-sync python -m stepaudio_cluster.images operator gateway runtime-cpu

lint: $(UV)
	$(UV) sync --frozen --quiet
	$(UV) run --no-sync ruff format --check .
	$(UV) run --no-sync ruff check .
	$(UV) run --no-sync lint-imports
	$(UV) run --no-sync mypy --cache-dir $(CACHE)/mypy

# The operator with 1, 100 and 1,000 deployments on simulated nodes: about half an hour, on an idle machine.
bench-operator: $(UV)
	$(UV) sync --frozen --quiet
	$(UV) run --no-sync python -m tests.bench.bench_operator

# Requests through rollouts, drains, releases and failures on a real kubelet: over two hours on two cores.
bench-rollouts: $(UV)
	$(UV) sync --frozen --quiet
	$(UV) run --no-sync python -m tests.bench.bench_rollouts

# Faults caused on a real kubelet, and how soon they are named: about five minutes.
bench-faults: $(UV)
	$(UV) sync --frozen --quiet
	$(UV) run --no-sync python -m tests.bench.bench_faults

# Flow, vocoder, tokenizers, streaming and first audio: about half an hour, on an idle machine.
bench-speech: $(UV)
	$(UV) sync --frozen --quiet
	$(UV) run --no-sync python -m tests.bench.bench_speech

# The image of the GPU nodes; its arguments are then checked by tests/contract/vllm_arguments.
image-cuda: $(UV)
	$(UV) run --frozen --package stepaudio-cluster python -m stepaudio_cluster.images runtime-cuda

lock-images: $(UV)
	$(UV) run --frozen --package stepaudio-cluster python -m stepaudio_cluster.requirements

# uv comes from PyPI, into the cache, where a machine has none.
$(CACHE)/uv/bin/uv:
	python3 -m venv $(CACHE)/uv 2>/dev/null || (apt-get update -qq && apt-get install -y -qq python3-venv && python3 -m venv $(CACHE)/uv)
	$(CACHE)/uv/bin/pip install --quiet uv==0.13.9
