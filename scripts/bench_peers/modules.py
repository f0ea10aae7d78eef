"""EmbeddingGemma and BERT as plain torch modules over the float32 weights of a GGUF file.

Token ids and a mask in, vectors of unit length out: what the other engines are given, by export to
ONNX. transformers' own classes cannot be exported: tracing refuses how they make their masks.
"""

import gguf
import torch
from torch import nn
from torch.nn import functional as F

SLIDING = 257 # a token of a sliding layer sees those nearer than this
FULL_EVERY = 6 # of this many layers the last sees all


class Weights:
    """Tensors by their name in the file, as float32."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.tensors = {t.name: t for t in reader.tensors}
        self.fields = reader.fields

    def __call__(self, name):
        tensor = self.tensors[name]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        return torch.tensor(values.reshape(tuple(int(n) for n in reversed(tensor.shape))))

    def number(self, key):
        return self.fields[key].contents()

    def parameter(self, name):
        return nn.Parameter(self(name), requires_grad=False)

    def linear(self, name):
        weight = self(name + ".weight")
        layer = nn.Linear(weight.shape[1], weight.shape[0], bias=name + ".bias" in self.tensors)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            layer.bias = self.parameter(name + ".bias")
        return layer

    def embedding(self, name):
        return nn.Embedding.from_pretrained(self(name))


class RMSNorm(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, x):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        return (wide * self.weight.float()).to(x.dtype)


class GemmaLayer(nn.Module):
    def __init__(self, weights, i):
        super().__init__()
        at = f"blk.{i}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            setattr(self, name, weights.linear(at + name))
        for name in ("attn_norm", "attn_q_norm", "attn_k_norm", "post_attention_norm", "ffn_norm",
                     "post_ffw_norm"):
            setattr(self, name, RMSNorm(weights.parameter(at + name + ".weight")))

    def attend(self, x, cos, sin, mask):
        n, length, _ = x.shape
        q = self.attn_q_norm(self.attn_q(x).view(n, length, 3, 256)).transpose(1, 2)
        k = self.attn_k_norm(self.attn_k(x).view(n, length, 1, 256)).transpose(1, 2)
        v = self.attn_v(x).view(n, length, 1, 256).transpose(1, 2)

        def rotate(a):
            half = torch.cat((-a[..., 128:], a[..., :128]), -1)
            return a * cos + half * sin
        scores = rotate(q) @ rotate(k).transpose(2, 3) * 0.0625 + mask
        out = torch.softmax(scores, -1) @ v
        return self.attn_output(out.transpose(1, 2).reshape(n, length, 768))

    def forward(self, x, cos, sin, mask):
        x = x + self.post_attention_norm(self.attend(self.attn_norm(x), cos, sin, mask))
        h = self.ffn_norm(x)
        h = self.ffn_down(F.gelu(self.ffn_gate(h), approximate="tanh") * self.ffn_up(h))
        return x + self.post_ffw_norm(h)


class Gemma(nn.Module):
    def __init__(self, weights):
        super().__init__()
        n_layers = weights.number("gemma-embedding.block_count")
        self.tokens = weights.embedding("token_embd.weight")
        self.layers = nn.ModuleList(GemmaLayer(weights, i) for i in range(n_layers))
        self.norm = RMSNorm(weights.parameter("output_norm.weight"))
        self.dense_2, self.dense_3 = weights.linear("dense_2"), weights.linear("dense_3")
        for name, base in ("local", 1e4), ("full", 1e6):
            frequencies = base ** (-torch.arange(0, 256, 2, dtype=torch.float64) / 256)
            angles = torch.arange(2048, dtype=torch.float64)[:, None] * frequencies
            angles = torch.cat((angles, angles), -1)
            self.register_buffer(f"{name}_cos", angles.cos().float())
            self.register_buffer(f"{name}_sin", angles.sin().float())

    def forward(self, ids, mask):
        x = self.tokens(ids) * 768 ** 0.5
        length = ids.shape[1]
        at = torch.arange(length)
        padding = ((1 - mask) * -1e9)[:, None, None, :].to(x.dtype)
        far = ((at[:, None] - at[None, :]).abs() >= SLIDING).to(x.dtype) * -1e9
        for i, layer in enumerate(self.layers):
            is_full = i % FULL_EVERY == FULL_EVERY - 1
            name = "full" if is_full else "local"
            cos = getattr(self, f"{name}_cos")[:length].to(x.dtype)
            sin = getattr(self, f"{name}_sin")[:length].to(x.dtype)
            x = layer(x, cos, sin, padding if is_full else padding + far)
        x = self.norm(x).float()
        weight = mask[:, :, None].float()
        pooled = (x * weight).sum(1) / weight.sum(1)
        pooled = self.dense_3(self.dense_2(pooled.to(self.dense_2.weight.dtype)))
        return F.normalize(pooled.float(), dim=-1)


class BertLayer(nn.Module):
    def __init__(self, weights, i, n_heads, dim, epsilon):
        super().__init__()
        at = f"blk.{i}."
        for name in "attn_q", "attn_k", "attn_v", "attn_output", "ffn_up", "ffn_down":
            setattr(self, name, weights.linear(at + name))
        self.attn_norm = layer_norm(weights, at + "attn_output_norm", dim, epsilon)
        self.out_norm = layer_norm(weights, at + "layer_output_norm", dim, epsilon)
        self.n_heads = n_heads

    def forward(self, x, mask):
        n, length, dim = x.shape

        def heads(a):
            return a.view(n, length, self.n_heads, dim // self.n_heads).transpose(1, 2)
        q, k, v = heads(self.attn_q(x)), heads(self.attn_k(x)), heads(self.attn_v(x))
        scores = q @ k.transpose(2, 3) * (dim // self.n_heads) ** -0.5 + mask
        out = (torch.softmax(scores, -1) @ v).transpose(1, 2).reshape(n, length, dim)
        x = self.attn_norm(x + self.attn_output(out))
        return self.out_norm(x + self.ffn_down(F.gelu(self.ffn_up(x))))


def layer_norm(weights, name, dim, epsilon):
    norm = nn.LayerNorm(dim, eps=epsilon)
    norm.weight = weights.parameter(name + ".weight")
    norm.bias = weights.parameter(name + ".bias")
    return norm


class Bert(nn.Module):
    """Mean pooling, as all-MiniLM has it."""

    def __init__(self, weights):
        super().__init__()
        dim = weights.number("bert.embedding_length")
        epsilon = weights.number("bert.attention.layer_norm_epsilon")
        heads = weights.number("bert.attention.head_count")
        self.tokens = weights.embedding("token_embd.weight")
        self.positions = weights.parameter("position_embd.weight")
        self.kind = nn.Parameter(weights("token_types.weight")[0], requires_grad=False)
        self.norm = layer_norm(weights, "token_embd_norm", dim, epsilon)
        self.layers = nn.ModuleList(BertLayer(weights, i, heads, dim, epsilon)
                                    for i in range(weights.number("bert.block_count")))

    def forward(self, ids, mask):
        x = self.norm(self.tokens(ids) + self.positions[:ids.shape[1]] + self.kind)
        padding = ((1 - mask) * -1e9)[:, None, None, :].to(x.dtype)
        for layer in self.layers:
            x = layer(x, padding)
        weight = mask[:, :, None].float()
        return F.normalize((x.float() * weight).sum(1) / weight.sum(1), dim=-1)


def load(path):
    weights = Weights(path)
    kind = weights.fields["general.architecture"].contents()
    return {"gemma-embedding": Gemma, "bert": Bert}[kind](weights).eval()
