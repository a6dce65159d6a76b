from __future__ import annotations

import pytest

from cutline.chat.answer_text import (
    repeated_phrase,
    to_sentence,
    whole_sentences,
    without_reasoning,
)
from cutline.chat.language import detect, mismatch
from cutline.chat.refusals import refusal_in

DOG = "A dog runs."


@pytest.mark.parametrize(
    "text",
    [
        DOG,
        f"<think>\nIs it a dog?\n</think>\n\n{DOG}",
        f"It is a dog.\n</think>\n{DOG}",
        f"<THINKING>x</THINKING>{DOG}",
        f"<thought>x</thought>{DOG}",
        f"<reason>x</reason>{DOG}",
        f"<analysis>x</analysis>{DOG}",
        f"<scratchpad>x</scratchpad>{DOG}",
        f"<seed:think>x</seed:think>{DOG}",
        f"<think budget=5>x</think>{DOG}",
        f"<think>a</think><think>b</think>{DOG}",
        f"{DOG}<think>Was that right",
        f"[THINK]x[/THINK]{DOG}",
        f"◁think▷x◁/think▷{DOG}",
        f"<|begin_of_thought|>x<|end_of_thought|><|begin_of_solution|>{DOG}<|end_of_solution|>",
        f"<|START_THINKING|>x<|END_THINKING|><|START_RESPONSE|>{DOG}<|END_RESPONSE|>",
        f"<unused94>thought\nx<unused95>{DOG}",
        f"<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>{DOG}",
        f"<|channel|>commentary<|message|>x<|end|><|channel|>final<|message|>{DOG}<|return|>",
        f"<|channel>thought\nx<channel|>{DOG}",
        f"analysisA dog?assistantfinal{DOG}",
        f"<reasoning_steps>x</reasoning_steps>{DOG}",
        f"<internal_monologue>x</internal_monologue>{DOG}",
        f"<|start_think|>x<|end_think|>{DOG}",
        f"Thinking...\nA dog?\n...done thinking.\n\n{DOG}",
        f"<details><summary>Thoughts</summary>x</details>\n{DOG}",
        f"Let me look.\n\nFinal answer: {DOG}",
        f"**Reasoning:** it barks.\n\n**Answer:** {DOG}",
        f"{DOG}\n---\nThis is concise.",
        f"<p>{DOG}</p>",
        f"[{DOG}]",
        f'You could use: "{DOG}"',
        f"Okay, so here's my caption: {DOG}",
        f"Description of the image: {DOG}",
        f'{{"result": {{"alt": "{DOG}"}}}}',
        f"&quot;{DOG}&quot;",
        f"<|begin_of_box|>{DOG}<|end_of_box|>",
        f"\\boxed{{{DOG}}}",
        f"<answer>{DOG}</answer>",
        f"Let me see. <caption>{DOG}</caption>",
        f"{DOG}<|im_end|>",
        f"{DOG}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nMore",
        f"{DOG}</s>",
        f"{DOG}<end_of_turn>\n<start_of_turn>user",
        f"{DOG}<｜end▁of▁sentence｜>",
        f"<s>{DOG}",
        f"ASSISTANT: {DOG}",
        f"```\n{DOG}\n```",
        f"```text\n{DOG}",
        f"**{DOG}**",
        f"*{DOG}*",
        f"_{DOG}_",
        f"`{DOG}`",
        f"> {DOG}",
        f"# Alt text\n{DOG}",
        f"- {DOG}",
        f"1. {DOG}\n2. A brown dog.",
        f"**Option 1:** {DOG}\n**Option 2:** A brown dog.",
        f"Alt text: {DOG}",
        f'alt="{DOG}"',
        f"**Alt Text:** {DOG}",
        f"Caption - {DOG}",
        f"Suggested alt text (English): {DOG}",
        f"Alternativtext: {DOG}",
        f"Texte alternatif : {DOG}",
        f"Sure! Here is the alt text:\n\n{DOG}",
        f"Certainly! Here's a concise description for the image: {DOG}",
        f"Of course. I would suggest this alt text: {DOG}",
        f"Here you go: {DOG}",
        f"{DOG}\n\nLet me know if you need anything else!",
        f"{DOG}\n\n(Word count: 3)",
        f"{DOG} (3 words)",
        f'"{DOG}"',
        f"“{DOG}”",
        f"„{DOG}“",
        f"«{DOG}»",
        f"'{DOG}'",
        '"A dog runs".',
        f'![{DOG}](dog.jpg "title")',
        f'<img src="dog.jpg" alt="{DOG}">',
        f'{{"alt_text": "{DOG}"}}',
        f'```json\n{{"caption": "{DOG}"}}\n```',
        f"\ufeff{DOG}\u200b",
        "A dog\x00 runs.\x1b[0m",
        "A\u00a0dog\u2028runs.",
        "A **dog** runs.",
        "A [dog](https://example.org/dog) runs.",
    ],
)
def test_the_sentence_in_an_answer(text: str) -> None:
    assert to_sentence(text) == DOG


@pytest.mark.parametrize(
    "text",
    [
        'A sign that says "STOP"',
        '"Welcome" is painted on a wall',
        '"Welcome" and "Goodbye"',
        "Two bowls that are the dogs'",
        "A 5* hotel with a 3 * 4 grid",
        "A file named my_dog_photo.jpg on a screen",
        "A map of the world: oceans in blue",
        "The image shows a dog: it is brown",
        "A slide that reads [Analysis]",
        "A caption contest poster",
        "Here comes the sun: a mural",
        "Analysis of the final results",
        "A family 👨‍👩‍👧 emoji",
        "می‌خواهم",
        "1 dog and 2 cats",
        "Alternative energy plant",
    ],
)
def test_a_plain_sentence_stays_as_it_is(text: str) -> None:
    assert to_sentence(text) == text


@pytest.mark.parametrize(
    "text", ["", "  ", '""', "N/A", "null", "...", "<think>only", "[image description]"]
)
def test_answers_without_words_give_no_sentence(text: str) -> None:
    assert to_sentence(text) == ""


def test_reasoning_is_reported() -> None:
    assert without_reasoning(f"<think>x</think>{DOG}") == (DOG, True)
    assert without_reasoning(DOG) == (DOG, False)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("I'm sorry, but I can't assist with that request.", "refusal"),
        ("I’m sorry, I cannot help with this.", "refusal"),
        ("Sorry, but I'm not able to help with that.", "refusal"),
        ("I cannot identify people in pictures like this.", "refusal"),
        ("I am not able to fulfil this request.", "refusal"),
        ("I won't provide a description of this content.", "refusal"),
        ("Unfortunately, I can't help with that.", "refusal"),
        ("As an AI language model, I have no opinion.", "refusal"),
        ("My apologies, this goes against my guidelines.", "refusal"),
        ("This image contains explicit content.", "refusal"),
        ("Leider kann ich dabei nicht helfen.", "refusal"),
        ("Ich kann diese Person nicht identifizieren.", "refusal"),
        ("Je suis désolé, mais je ne peux pas.", "refusal"),
        ("Lo siento, no puedo ayudar.", "refusal"),
        ("Mi dispiace, non posso.", "refusal"),
        ("Het spijt me.", "refusal"),
        ("К сожалению, я не могу помочь.", "refusal"),
        ("很抱歉,我无法回答。", "refusal"),
        ("申し訳ありませんが、お手伝いできません。", "refusal"),
        ("I'm afraid I can't do that.", "refusal"),
        ("Cannot identify the person.", "refusal"),
        ("This request has been blocked by our safety filter.", "refusal"),
        ("That's not something I can help with.", "refusal"),
        ("I can't tell you who this is, but it shows two men.", "refusal"),
        ("Jeg beklager, men det kan jeg ikke.", "refusal"),
        ("Error: image not found", "blind"),
        ("Ich sehe kein Bild.", "blind"),
        ("I'm unable to see images directly.", "blind"),
        ("I can't view the picture you mention.", "blind"),
        ("I do not see an image in your message.", "blind"),
        ("No image was provided.", "blind"),
        ("There is no image attached to your message.", "blind"),
        ("Please upload the image you want described.", "blind"),
        ("It looks like you forgot to attach the picture.", "blind"),
        ("I'd be happy to help, but please share the image first.", "blind"),
        ("The image could not be loaded.", "blind"),
        ("A protester holds a sign: I can't breathe", ""),
        ("Sorry we're closed, says a sign on a door", ""),
        ("A sorry-looking dog in the rain", ""),
        ("The image of a church is reflected in water", ""),
        ("Internal view of a church", ""),
        ("Cannons on a castle wall", ""),
        ("An unfortunate accident on a road", ""),
        ("I love New York printed on a shirt", ""),
        ("A grey placeholder that reads No image available", ""),
        ("Please keep off the grass, says a sign", ""),
        ("The image of a saint in a church window", ""),
    ],
)
def test_refusals_are_recognised(text: str, kind: str) -> None:
    assert refusal_in(to_sentence(text)) == kind


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A dog runs. Its tongue is", "A dog runs."),
        ("A dog! And a", "A dog!"),
        ('A sign says "Stop." A car', 'A sign says "Stop."'),
        ("狗在跑。它的", "狗在跑。"),
        ("A dog runs across", ""),
        ("A portrait of Dr. Smith with", ""),
        ("The 3.5 inch", ""),
    ],
)
def test_a_cut_answer_ends_with_its_last_whole_sentence(text: str, kept: str) -> None:
    assert whole_sentences(text) == kept


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("A man with a hat is standing in front of a house", "en"),
        ("Ein Mann mit einem Hut steht vor dem Haus", "de"),
        ("Un homme avec un chapeau est devant la maison", "fr"),
        ("Un hombre con sombrero en la calle de la ciudad", "es"),
        ("一只狗在草地上奔跑。", "zh"),
        ("犬が草の上を走っています。", "ja"),
        ("개가 잔디 위를 달린다", "ko"),
        ("Собака бежит по траве", "ru"),
        ("Ein Hund", ""),
        ("STOP", ""),
        ("123", ""),
    ],
)
def test_the_language_of_a_text_is_detected(text: str, language: str) -> None:
    assert detect(text) == language


def test_a_note_on_the_language_only_where_it_is_clear() -> None:
    assert mismatch("Собака бежит по траве", "uk") == ""
    assert mismatch("A dog", "de") == ""
    assert mismatch("A man with a hat is in the house", "de-AT") == (
        "the answer seems to be in English, not in German"
    )


def test_long_hostile_answers_take_little_time() -> None:
    for part in ("**a ", "<think>", '"', "[a](", "1. x\n", "((", "here is the alt "):
        to_sentence(part * (20_000 // len(part)))


@pytest.mark.parametrize(
    "answer",
    [
        "<s>[INST]Describe the image[/INST] A dog runs over grass.",
        "A dog runs over grass.\n\n(Character count: 22)",
        "A dog runs over grass. [words: 5]",
    ],
)
def test_prompts_and_counts_are_removed(answer: str) -> None:
    assert to_sentence(answer) == "A dog runs over grass."


@pytest.mark.parametrize(
    "answer", ["我看不到图片。", "画像が見えません。", "이미지를 볼 수 없습니다."]
)
def test_models_that_see_no_image_say_so_in_other_scripts(answer: str) -> None:
    assert refusal_in(answer) == "blind"


@pytest.mark.parametrize(
    "answer",
    [
        f'{{"alt": "{DOG}",}}',
        f"{{'alt_text': '{DOG}'}}",
        f'{{"alt": "{DOG}',
        f'{{"altText": "{DOG}" // the text\n}}',
        f'Here is the JSON: {{"alt": "{DOG}"}}',
        f'{{"image": {{"alt": "{DOG}"}}}}',
        f'"{{\\"alt\\": \\"{DOG}\\"}}"',
        f'{{"leyenda": "{DOG}"}}',
        f'\\"{DOG}\\"',
        f"&lt;think&gt;x&lt;/think&gt;{DOG}",
        f'<tool_call>{{"name": "look"}}</tool_call>{DOG}',
        f"User: Describe this.\nAssistant: {DOG}",
        f"Title: Dog\nDescription: {DOG}",
        f"Альтернативный текст: {DOG}",
        f"대체 텍스트: {DOG}",
    ],
)
def test_the_sentence_in_broken_and_wrapped_answers(answer: str) -> None:
    assert to_sentence(answer) == DOG


@pytest.mark.parametrize(
    "answer", ["{{alt}}", "[Insert the alt text here]", '{"a": 1}', "<tool_call>{}</tool_call>"]
)
def test_templates_and_calls_are_no_sentence(answer: str) -> None:
    assert to_sentence(answer) == ""


@pytest.mark.parametrize(
    "answer",
    [
        "Oops! I can't do that.",
        "Thanks for sharing, but I can't describe this image.",
        "I appreciate your question, but I'm not able to describe people.",
        "I must respectfully decline to describe this.",
        "Dabei kann ich leider nicht helfen.",
        "Jag kan tyvärr inte hjälpa till med det.",
        "Jeg kan desværre ikke hjælpe med det.",
        "Îmi pare rău, nu pot ajuta.",
        "Xin lỗi, tôi không thể giúp.",
        "Вибачте, я не можу допомогти.",
        "Λυπάμαι, δεν μπορώ να βοηθήσω.",
        "ขออภัย ฉันไม่สามารถช่วยได้",
        "عذرًا، لا يمكنني المساعدة في ذلك.",
        "מצטער, אני לא יכול לעזור.",
        "क्षमा करें, मैं इसमें मदद नहीं कर सकता।",
        "无法识别图片内容。",
    ],
)
def test_refusals_in_more_languages_and_after_thanks(answer: str) -> None:
    assert refusal_in(answer) == "refusal"


@pytest.mark.parametrize(
    "caption",
    [
        "Hello Kitty waves from a poster.",
        "Thank you cards lie on a table.",
        "An error message on a screen: disk full",
        'A shirt says "I can\'t adult today"',
    ],
)
def test_captions_with_words_of_refusals_stay(caption: str) -> None:
    assert refusal_in(caption) == ""


def test_a_model_in_a_loop_is_noticed() -> None:
    assert repeated_phrase("A dog and " + "a small dog, " * 9) == "a small dog,"
    assert (
        repeated_phrase("Ha ha ha ha, laughs a man. A man laughs. A dog barks. A cat runs.") == ""
    )
