"""Vectors as the model's authors compute them, by PyPI's onnxruntime and tokenizers.

reference.py MODEL_DIR POOLING < texts.json > vectors.json

One text at a time, so that nothing depends on padding.
"""
import json
import sys

import numpy
import onnxruntime
import tokenizers

directory, pooling = sys.argv[1:]
tokenizer = tokenizers.Tokenizer.from_file(f"{directory}/tokenizer.json")
tokenizer.no_truncation()
tokenizer.no_padding()
session = onnxruntime.InferenceSession(f"{directory}/model.onnx", providers=["CPUExecutionProvider"])
wanted = {entry.name for entry in session.get_inputs()}


def vector(text):
    encoding = tokenizer.encode(text)
    inputs = {
        "input_ids": numpy.array([encoding.ids], dtype=numpy.int64),
        "attention_mask": numpy.array([encoding.attention_mask], dtype=numpy.int64),
        "token_type_ids": numpy.array([encoding.type_ids], dtype=numpy.int64),
    }
    (hidden,) = session.run(["last_hidden_state"], {name: value for name, value in inputs.items() if name in wanted})
    pooled = hidden[0, 0] if pooling == "cls" else hidden[0].mean(axis=0)
    return (pooled / numpy.linalg.norm(pooled)).tolist()


json.dump([vector(text) for text in json.load(sys.stdin)], sys.stdout)
