"""A tool call, and an answer that keeps a JSON schema."""

import os

from openai import OpenAI
from pydantic import BaseModel, Field

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://localhost:8000/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


class Command(BaseModel):
    program: str = Field(max_length=20)
    does: str = Field(max_length=60)


called = client.chat.completions.create(
    model="base",
    messages=[{"role": "user", "content": "What is the weather in Oslo?"}],
    tools=[
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "The weather of a city.",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string", "maxLength": 20}},
                    "required": ["city"],
                    "additionalProperties": False,
                },
            },
        }
    ],
    tool_choice={"type": "function", "function": {"name": "weather"}},
    max_tokens=60,
)
for call in called.choices[0].message.tool_calls or []:
    print("call:", call.model_dump_json())

parsed = client.chat.completions.parse(
    model="base",
    messages=[{"role": "user", "content": "Which shell command lists files? One word each."}],
    response_format=Command,
    max_tokens=120,
)
print("parsed:", parsed.choices[0].message.parsed)
