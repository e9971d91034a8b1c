"""Two adapters mixed for one request, streamed; then what each stage did."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)

stream = client.chat.completions.create(
    model="micro-kiki",
    messages=[{"role": "user", "content": "Write a bash script that queries a sqlite database."}],
    max_tokens=60,
    stream=True,
    extra_body={"kiki": {"adapters": {"shell": 0.6, "sql": 0.4}, "explain": True}},
)
explained = None
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    explained = (chunk.model_extra or {}).get("kiki") or explained
print("\n")
assert explained, "the last chunk explains the turn"
for stage in explained["stages"]:
    print(f"{stage['name']:<10} {stage['ms']:8.1f} ms")
