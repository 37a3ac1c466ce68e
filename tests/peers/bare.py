"""The plain script that most people write: all prompts into one `LLM.generate`, then a file.

    python tests/peers/bare.py task.json

Run by the engine's interpreter; standard library and vLLM only.
"""

import json
import sys
import time


def main() -> None:
    """Answer the requests of a task; write answers and times where the task says."""
    with open(sys.argv[1], encoding="utf-8") as stream:  # noqa: PTH123
        task = json.load(stream)
    began = time.time()
    import vllm

    imported = time.time()
    llm = vllm.LLM(**task["arguments"])
    loaded = time.time()
    with open(task["requests"], encoding="utf-8") as stream:  # noqa: PTH123
        requests = [json.loads(line) for line in stream]
    params = [vllm.SamplingParams(**request["sampling"]) for request in requests]
    prompts = [request["prompt"] for request in requests]
    if "messages" in prompts[0]:
        messages = [prompt["messages"] for prompt in prompts]
        outputs = llm.chat(messages, params, use_tqdm=False)
    else:
        outputs = llm.generate([prompt["text"] for prompt in prompts], params, use_tqdm=False)
    generated = time.time()
    prompt_tokens = completion_tokens = 0
    with open(task["answers"], "w", encoding="utf-8") as stream:  # noqa: PTH123
        for request, output in zip(requests, outputs):  # noqa: B905
            completion = output.outputs[0]
            tokens = list(completion.token_ids)
            prompt_tokens += len(output.prompt_token_ids)
            completion_tokens += len(tokens)
            answer = {"key": request["key"], "text": completion.text, "token_ids": tokens}
            stream.write(json.dumps(answer) + "\n")
    facts = {
        "startup_s": {"import": imported - began, "load": loaded - imported},
        "generate_s": generated - loaded,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "version": vllm.__version__,
    }
    with open(task["facts"], "w", encoding="utf-8") as stream:  # noqa: PTH123
        json.dump(facts, stream)


if __name__ == "__main__":
    main()
