"""A conversation in French that kiki remembers in the next one."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


def say(text: str, user: str) -> dict[str, object]:
    answer = client.chat.completions.create(
        model="micro-kiki",
        messages=[{"role": "user", "content": text}],
        user=user,
        max_tokens=40,
        extra_body={"kiki": {"explain": True}},
    )
    print(f"> {text}\n{answer.choices[0].message.content}\n")
    explained: dict[str, object] = answer.model_extra["kiki"] if answer.model_extra else {}
    return explained


say("Bonjour ! Mon chien s'appelle Pixel et il adore la neige.", user="anna")
explained = say("Comment s'appelle mon chien ?", user="anna")
print("memory:", explained["memory"])
