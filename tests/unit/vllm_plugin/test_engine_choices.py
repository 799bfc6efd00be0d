"""What the plugin settles when vLLM builds its configuration: attention backend, parallelism."""

import pytest
from vllm.config.attention import AttentionConfig
from vllm.v1.attention.backends.registry import AttentionBackendEnum

from stepaudio_vllm import Step1ConfigError
from stepaudio_vllm.hooks import check_tensor_parallel, choose_cuda_backend

TRITON = AttentionBackendEnum.TRITON_ATTN


@pytest.mark.parametrize("named", [None, TRITON])
def test_cuda_takes_the_only_backend_with_the_bias(named: AttentionBackendEnum | None) -> None:
    attention = AttentionConfig(backend=named)
    choose_cuda_backend(attention)
    assert attention.backend is TRITON


@pytest.mark.parametrize(
    "attention",
    [
        AttentionConfig(backend=AttentionBackendEnum.FLASH_ATTN),
        AttentionConfig(backend_per_kind={"full_attention": AttentionBackendEnum.FLASH_ATTN}),
    ],
)
def test_another_backend_on_cuda_is_refused(attention: AttentionConfig) -> None:
    with pytest.raises(Step1ConfigError, match=r"^attention-backend FLASH_ATTN: .*use TRITON_ATTN$"):
        choose_cuda_backend(attention)


@pytest.mark.parametrize(
    ("heads", "groups", "size"), [(48, 4, 1), (48, 4, 2), (48, 4, 4), (48, 4, 8), (96, 8, 4), (12, 4, 2)]
)
def test_sizes_that_split_evenly(heads: int, groups: int, size: int) -> None:
    check_tensor_parallel(heads, groups, size)


@pytest.mark.parametrize(("heads", "groups", "size"), [(48, 4, 5), (48, 4, 6), (96, 8, 3)])
def test_sizes_that_do_not_split_evenly(heads: int, groups: int, size: int) -> None:
    with pytest.raises(Step1ConfigError, match=f"^tensor-parallel-size {size}: "):
        check_tensor_parallel(heads, groups, size)
