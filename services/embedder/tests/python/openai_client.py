"""What OpenAI's own client sees: openai_client.py BASE_URL MODEL < texts.json > seen.json"""
import json
import sys

import openai

base_url, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="not asked for", max_retries=0)
texts = json.load(sys.stdin)

# Asks for base64 by itself, which it decodes.
usual = client.embeddings.create(model=model, input=texts)
floats = client.embeddings.create(model=model, input=texts[0], encoding_format="float")


def refused(**arguments):
    try:
        client.embeddings.create(**arguments)
    except openai.APIStatusError as error:
        return {"class": type(error).__name__, "status": error.status_code, "code": error.code, "param": error.param}
    return None


json.dump(
    {
        "vectors": [item.embedding for item in usual.data],
        "indexes": [item.index for item in usual.data],
        "floats": floats.data[0].embedding,
        "model": usual.model,
        "tokens": usual.usage.prompt_tokens,
        "models": [item.id for item in client.models.list()],
        "refused": {
            "empty": refused(model=model, input=["a", " "]),
            "empty_in_bulk": refused(model=model, input=["a"] * 69 + [" "]),
            "long": refused(model=model, input="river " * 600),
            "model": refused(model="text-embedding-3-small", input="a"),
            "dimensions": refused(model=model, input="a", dimensions=64),
            "tokens": refused(model=model, input=[1, 2, 3]),
        },
    },
    sys.stdout,
)
