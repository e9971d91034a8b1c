"""A niche adapter by name, beside its base; and a domain whose adapter isn't loaded."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)
QUESTION = "Write a SPICE netlist of an RC low-pass at 1 kHz."

for model in ("base", "spice", "kiki-niche-stm32"):
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        max_tokens=40,
        temperature=0,
    )
    answer = raw.parse().choices[0].message.content
    who = raw.headers.get("x-kiki-base-only")
    note = f" (the base answers: no adapter for {who})" if who else ""
    print(f"== {model}{note}\n{answer}\n")
