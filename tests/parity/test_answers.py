"""The answers of a conversation are the tokens that transformers marks as the assistant's own."""

from pathlib import Path

from transformers import AutoTokenizer

from harness.cases.case import load_case
from harness.corpus.conversations import chat_tokenizer, read_conversations, rendered
from harness.corpus.tokenizer_files import write_tokenizer

# ChatML, in which what an assistant writes is between the marks that transformers looks for.
MARKED = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' }}{%- if message.role == 'assistant' %}"
    "{% generation %}{{- message.content + '<|im_end|>' }}{% endgeneration %}"
    "{%- else %}{{- message.content + '<|im_end|>' }}{%- endif %}{{- '\\n' }}{%- endfor %}"
)


def test_answers_are_what_transformers_marks(tmp_path: Path) -> None:
    case = load_case("qwen3-tiny-sft-fp32")
    tokenizer, template = chat_tokenizer(case.data.tokenizer)
    write_tokenizer(case, tokenizer, tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    conversations = read_conversations(case.data.corpus)
    pairs = list(zip(conversations.each, rendered(conversations, tokenizer, template), strict=True))[:200]
    assert any(one[0]["role"] == "system" for one, _ in pairs) and any(len(one) > 3 for one, _ in pairs)
    for messages, ours in pairs:
        marked = theirs.apply_chat_template(
            list(messages), chat_template=MARKED, return_dict=True, return_assistant_tokens_mask=True
        )
        assert ours.ids.tolist() == marked["input_ids"]
        assert ours.answers.astype(int).tolist() == list(marked["assistant_masks"])
