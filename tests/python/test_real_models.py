"""Real weights: SmolLM2 from its GGUF file and a MiniLM sentence encoder, against transformers on the same values."""

from __future__ import annotations

from pathlib import Path

import lamella
import numpy as np
import pytest
import torch
import transformers
from compare import assert_greedy_equal, reference_greedy_given, reference_logits, relative_error

PROMPTS = (
    "The capital of France is",
    "Once upon a time, in a village by the sea,",
    "def fibonacci(n):\n    ",
    "The three laws of thermodynamics state that",
    "Dear Ms. Rossi,\n\nThank you for your letter of 14 March",
    "1, 1, 2, 3, 5, 8, 13,",
    "Water boils at",
    "In 1969, astronauts",
    "Die Hauptstadt von Deutschland ist",
    "Q: Why is the sky blue?\nA:",
)
TOKENS = 100
BOUND = 1e-4
FP32_BOUND = 1e-5


@pytest.fixture(scope="module")
def smollm2(smollm2_path: Path) -> transformers.PreTrainedModel:
    """transformers' model on the GGUF file's de-quantised weights."""
    return transformers.AutoModelForCausalLM.from_pretrained(
        smollm2_path.parent, gguf_file=smollm2_path.name, dtype=torch.float32
    ).eval()


def test_smollm2_logits_and_greedy_text_equal_transformers(
    smollm2: transformers.PreTrainedModel, smollm2_path: Path
) -> None:
    with lamella.Engine(smollm2_path, dtype="float32", max_model_len=512) as engine:
        ids = [engine.encode_prompt(prompt) for prompt in PROMPTS]
        worst, largest = 0.0, 0.0
        for prompt, logits in zip(ids, engine.logits(ids), strict=True):
            reference = reference_logits(smollm2, prompt)
            worst = max(worst, relative_error(logits, reference))
            largest = max(largest, float(np.abs(logits - reference).max()))
        # transformers' own fp32 logits, up to 36 large, are up to 1.0e-4 away from its fp64 ones, so the largest
        # difference cannot be held to less; the relative error can.
        print(f"logit error over {len(ids)} prompts: relative {worst:.2e}, largest {largest:.2e}")
        assert worst <= FP32_BOUND
        assert largest <= 3 * BOUND

        completions = engine.generate(list(PROMPTS), max_tokens=TOKENS, temperature=0, ignore_eos=True)
        ties = []
        for i, (completion, prompt) in enumerate(zip(completions, ids, strict=True)):
            expected, rows = reference_greedy_given(smollm2, prompt, completion.token_ids)
            agreement = assert_greedy_equal(completion.token_ids, expected, rows, largest)
            if agreement.tie_at is None:
                assert completion.text == engine.tokenizer_or_raise().decode(expected)
            else:
                ties.append((i, agreement.tie_at))
        print(f"{len(ids)} x {TOKENS} greedy tokens equal; ties at {ties or 'no position'}")


def test_smollm2_answers_a_chat_and_streams_the_same_text(smollm2_path: Path) -> None:
    messages = [
        {"role": "user", "content": "What is the capital of France? Answer in one sentence, then name it again: 😀é"}
    ]
    with lamella.Engine(smollm2_path, max_model_len=512) as engine:
        answer = engine.chat(messages, max_tokens=40, temperature=0)
        assert isinstance(answer, lamella.Completion)
        assert "Paris" in answer.text
        chunks = list(engine.chat(messages, max_tokens=40, temperature=0, stream=True))
        assert "".join(chunk.text for chunk in chunks) == answer.text
        assert [token for chunk in chunks for token in chunk.token_ids] == answer.token_ids
        assert chunks[-1].finish_reason == answer.finish_reason
        assert all(chunk.finish_reason is None for chunk in chunks[:-1])


def test_minilm_sentence_embeddings_equal_its_own(minilm_path: Path) -> None:
    sentences = [
        "A man is eating food.",
        "Ein Mann isst etwas.",
        "The quick brown fox jumps over the lazy dog!",
        "",
        "word " * 600,  # beyond the model's 256-token limit
    ]
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_path)
    model = transformers.AutoModel.from_pretrained(minilm_path, dtype=torch.float32).eval()
    with lamella.Engine(minilm_path, dtype="float32") as engine:
        ours = engine.encode(sentences)
    for sentence, embedding in zip(sentences, ours, strict=True):
        inputs = tokenizer(sentence, truncation=True, max_length=256, return_tensors="pt")
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(dim=0)
        expected = torch.nn.functional.normalize(mean, dim=0).numpy()
        assert float(np.abs(embedding - expected).max()) <= BOUND, sentence[:40]
