import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config

from modeling.attention import LONGEST, UNPADDED_CAUSAL, unpadded_causal


def attend(query, key, value, **options):
    return unpadded_causal(torch.nn.Identity(), query, key, value, None, **options)[0].transpose(1, 2)


def drawn(*shape, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_() for _ in range(3)]


@pytest.mark.parametrize("time", [2, 63, 64, 65, 200, 256])
@pytest.mark.parametrize("scaling", [None, 0.3])
def test_attention_in_blocks_and_its_gradients_are_those_of_torch(time, scaling):
    query, key, value = drawn(3, 2, time, 20, dtype=torch.float32)
    upstream = torch.randn(3, 2, time, 20, generator=torch.Generator().manual_seed(1))
    found = attend(query, key, value, scaling=scaling)
    gradients = torch.autograd.grad(found, (query, key, value), upstream)
    exact = [tensor.detach().double().requires_grad_() for tensor in (query, key, value)]
    expected = F.scaled_dot_product_attention(*exact, is_causal=True, scale=scaling)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(gradients, torch.autograd.grad(expected, exact, upstream.double()), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)


def test_bf16_errs_at_most_twice_as_much_as_torchs_own_kernel_which_keeps_scores_in_fp32():
    tensors = drawn(2, 2, 256, 64, dtype=torch.bfloat16)
    exact = F.scaled_dot_product_attention(*(t.detach().double() for t in tensors), is_causal=True)
    mine = (attend(*tensors).double() - exact).norm()
    torchs = (F.scaled_dot_product_attention(*tensors, is_causal=True).double() - exact).norm()
    assert mine < 2 * torchs


@pytest.mark.parametrize("options", [{"time": LONGEST + 1}, {"dtype": torch.float64}])
def test_what_the_blocks_are_not_made_for_goes_to_torch(options):
    query, key, value = drawn(1, 1, options.get("time", 5), 4, dtype=options.get("dtype", torch.float32))
    expected = F.scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.equal(attend(query, key, value), expected)


def test_a_model_with_it_has_the_loss_and_gradients_of_one_without():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=50, n_positions=100, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    model = AutoModelForCausalLM.from_config(config).eval()
    model.loss_type = "ForCausalLM"
    tokens = torch.randint(50, (3, 100))
    losses, gradients = [], []
    for attention in ("sdpa", UNPADDED_CAUSAL):
        model.set_attn_implementation(attention)
        model.zero_grad()
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(*losses)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
