"""The GGUF base in other shapes: every tensor as F32, and the folder that mlx_lm and vLLM read."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from adapters.training.trainer import load_base


def dequantize_gguf(source: Path, out: Path) -> None:
    """Copy a GGUF model with every tensor as F32, the metadata unchanged."""
    import numpy as np
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, dequantize

    reader = GGUFReader(source)
    writer = GGUFWriter(out, str(reader.fields["general.architecture"].contents()))
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in ("general.architecture", "general.file_type"):
            continue
        items = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], items)
    writer.add_file_type(LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        writer.add_tensor(tensor.name, np.ascontiguousarray(weights, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def export_hf(base_gguf: Path, out: Path) -> None:
    """Write the dequantised base as a Hugging Face folder in float32, tokenizer included.

    The folder appears whole or not at all; one that is there stays. Needs the training packages.
    """
    if out.is_dir():
        return
    model, tokenizer = load_base(base_gguf)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
        made = Path(folder) / out.name
        model.save_pretrained(made)
        tokenizer.save_pretrained(made)
        config = json.loads((made / "config.json").read_text("utf-8"))
        # transformers 5 keeps it in rope_parameters alone, and mlx_lm then assumes another.
        config.setdefault("rope_theta", config["rope_parameters"]["rope_theta"])
        (made / "config.json").write_text(json.dumps(config, indent=2), "utf-8")
        made.rename(out)
