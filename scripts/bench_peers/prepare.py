"""Write what the other engines run, from a float32 GGUF file: prepare.py MODEL.gguf FOLDER

model.onnx (float32), model-int8.onnx (onnxruntime's dynamic quantisation) and model-int8.xml
(OpenVINO, weights in 8 bits by nncf). Each is skipped when it is there.
"""

import sys
from pathlib import Path


def export(model, path):
    import torch # pylint: disable=import-outside-toplevel # takes seconds

    from . import modules # pylint: disable=import-outside-toplevel
    ids = torch.ones((2, 7), dtype=torch.int64)
    names = {"ids": {0: "n", 1: "length"}, "mask": {0: "n", 1: "length"}, "vectors": {0: "n"}}
    with torch.no_grad():
        torch.onnx.export(modules.load(model), (ids, torch.ones_like(ids)), str(path),
                          input_names=["ids", "mask"], output_names=["vectors"],
                          dynamic_axes=names, opset_version=18, dynamo=False)


def quantize(source, path):
    from onnxruntime import quantization # pylint: disable=import-outside-toplevel
    quantization.quantize_dynamic(str(source), str(path), per_channel=True,
                                  op_types_to_quantize=["MatMul"],
                                  use_external_data_format=True)


def compress(source, path):
    import nncf # pylint: disable=import-outside-toplevel
    import openvino # pylint: disable=import-outside-toplevel
    model = openvino.Core().read_model(source)
    openvino.save_model(nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM), path)


def main():
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for name, make, source in (("model.onnx", export, model),
                               ("model-int8.onnx", quantize, folder / "model.onnx"),
                               ("model-int8.xml", compress, folder / "model.onnx")):
        if (folder / (name + ".done")).exists():
            continue
        print(f"bench-peers: writing {folder / name}", file=sys.stderr, flush=True)
        make(source, folder / name)
        (folder / (name + ".done")).touch()


if __name__ == "__main__":
    main()
