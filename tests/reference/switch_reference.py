"""Switch Transformers in float64: Hugging Face's own code, with HyperExperts of gpt2_reference in its sparse sub-layers.

Needs transformers 4.57. Its four casts to float32 are lifted (norms, attention, the balance loss, the router), nothing
else is changed. Every HyperExpert is generated on its own, one token at a time.
"""

import importlib.util
import re
import sys
import types
import warnings

warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402
from transformers import SwitchTransformersConfig  # noqa: E402

import gpt2_reference  # noqa: E402
from random_weights import hyper_shapes  # noqa: E402

PACKAGE = "transformers.models.switch_transformers"
LIFTED = [("hidden_states.to(torch.float32)", "hidden_states"), ("scores.float()", "scores"),
          ("expert_mask.to(torch.float32)", "expert_mask.to(torch.float64)")]


def load_library():
    assert transformers.__version__.startswith("4.57."), transformers.__version__
    path = importlib.util.find_spec(PACKAGE + ".modeling_switch_transformers").origin
    with open(path, encoding="utf-8") as file:
        code = file.read()
    for cast, lifted in LIFTED:
        assert cast in code, cast
        code = code.replace(cast, lifted)
    # Decorators that only document.
    code = re.sub(r"^(\s*)@auto_docstring(\(.*?\))?$", r"\1", code, flags=re.M)
    code = re.sub(r"@auto_docstring\(\n(.*?)\n\)\n", "", code, flags=re.S)
    library = types.ModuleType(PACKAGE + ".in_float64")
    library.__package__ = PACKAGE
    sys.modules[library.__name__] = library
    exec(compile(code, library.__name__, "exec"), library.__dict__)  # the library's own source
    return library


class HyperExperts(gpt2_reference.Model):
    """The parts of that model which are about HyperExperts."""

    def __init__(self, keys, hyper, sparse_layers):
        self.config = {"n_embd": keys["d_model"], "n_layer": keys["num_layers"] + keys["num_decoder_layers"],
                       "encoder_blocks": keys["num_layers"]}
        self.moe = {"num_experts": keys["num_experts"], "top_k": 1, "sparse_layers": sparse_layers}
        self.hyper = {**gpt2_reference.HYPER_DEFAULTS, **hyper}
        self.margins = gpt2_reference.Margins()
        self.tensors = {}

    def shapes(self):
        return hyper_shapes({**self.config, "moe": self.moe}, self.hyper)

    def scope(self, key, layer):
        stack = "encoder" if layer < self.config["encoder_blocks"] else "decoder"
        return {"layer": str(layer), "stack": stack, "model": "model"}[self.hyper[key]]


class SwitchReference:
    def __init__(self, library, config):
        """config: what config.json says."""
        self.keys = {key: value for key, value in config.items() if key != "hypermoe"}
        self.settings = SwitchTransformersConfig(**self.keys)
        for step in ("encoder_sparse_step", "decoder_sparse_step"):
            setattr(self.settings, step, self.keys.get(step, getattr(self.settings, step)))
        self.settings.router_dtype = "float64"
        self.settings._attn_implementation = "eager"
        self.model = library.SwitchTransformersForConditionalGeneration(self.settings).to(torch.float64).eval()
        self.routing = {}  # of the last pass, by layer: choices, whether they were kept, logits
        self.sparse = {}
        for first, stack in ((0, self.model.encoder), (self.settings.num_layers, self.model.decoder)):
            for index, block in enumerate(stack.block):
                if block.layer[-1].is_sparse:
                    self.sparse[first + index] = block.layer[-1].mlp
        self.hyper = HyperExperts(self.keys, config["hypermoe"], list(self.sparse)) if "hypermoe" in config else None
        for layer, mlp in self.sparse.items():
            mlp.forward = self.watched(layer, mlp, mlp.forward)

    def watched(self, layer, mlp, forward):
        def pass_over(x_BSD):
            mask, _, logits = mlp.router(x_BSD)
            chosen, kept = logits.argmax(-1), mask.sum(-1) > 0
            self.routing[layer] = (chosen, kept, logits.detach())
            y_BSD, rest = forward(x_BSD)
            if self.hyper is not None:
                y_BSD = y_BSD + self.hyper_experts(layer, x_BSD, logits, chosen, kept)
            return y_BSD, rest
        return pass_over

    def hyper_experts(self, layer, x_BSD, logits, chosen, kept):
        rows = []
        for b in range(x_BSD.shape[0]):
            for s in range(x_BSD.shape[1]):
                probs = logits[b, s].softmax(0)
                token = {"chosen": [chosen[b, s].item()], "kept": [kept[b, s].item()], "probs": probs, "gates": [probs.max()]}
                rows.append(self.hyper.scaled_hyper_expert(x_BSD[b, s], token, layer))
        return torch.stack(rows).reshape(x_BSD.shape)

    def shapes(self):
        """Of every tensor that a folder holds."""
        names = {name: list(value.shape) for name, value in self.model.named_parameters()}
        if not self.settings.tie_word_embeddings:
            # The library has encoder's and decoder's as one, and saves them as such.
            names["lm_head.weight"] = names["shared.weight"]
        return {**names, **(self.hyper.shapes() if self.hyper is not None else {})}

    def take(self, tensors):
        """Values for all of them; HyperExperts' become leaves."""
        own = self.model.state_dict()
        with torch.no_grad():
            for name, value in tensors.items():
                if name in own:
                    own[name].copy_(value)
                else:
                    self.hyper.tensors[name] = value.to(torch.float64, copy=True).requires_grad_()

    def gradients(self, names):
        parameters = dict(self.model.named_parameters())
        leaves = {name: parameters[name] if name in parameters else self.hyper.tensors[name] for name in names}
        return {name: torch.zeros_like(leaf) if leaf.grad is None else leaf.grad.clone() for name, leaf in leaves.items()}
