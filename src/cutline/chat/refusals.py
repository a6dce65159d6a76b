"""Detection of refusals and apologies in the answers of chat models."""

from __future__ import annotations

import re

_CANNOT = (
    r"(?:can(?:no|['’]?)t|can\snot|am\s(?:not\s|un)able|am\snot\s(?:allowed|permitted|going"
    r"|comfortable)"
    r"|won['’]?t|will\snot|must\s(?:decline|refuse)|do(?:n['’]?t|\snot)|could(?:n['’]?t|\snot)"
    r"|have\sto\sdecline|decline)"
)
_POLITE = (
    r"(?:(?:hmm+|oops|uh|um|oh|ah|hi|hello|hey)\b\W*|(?:thanks?|thank\syou)\b[^,.!\n]{0,80}[,.!]+\s*"
    r"|i\s(?:appreciate|understand|see\sthat)\b[^,.!\n]{0,120}[,.!]+\s*|(?:but|however)\W+)*"
)
"""What may stand before a refusal in the first person."""

_REFUSAL = re.compile(
    rf"""^\W*{_POLITE}(?:
    (?:i['’]m|i\sam|we['’]re)\s(?:so\s|very\s|really\s)?sorry\b(?!\s+we).*
    |sorry\W*
    |i(?:['’]m|\sam)\safraid\b.*|i\smust\s(?:\w+ly\s)?(?:decline|refuse)\b.*
    |(?:cannot|can['’]?t|could\snot|couldn['’]?t|unable\sto|not\sable\sto)\s(?:assist|help
    |provide|process
     |identify|describe|comply|fulfil|generate|complete|analy[sz]e|determine|see|view|access
     |read|display)\b.*
    |that['’]s\snot\ssomething\si\b.*|i(?:['’]d|\swould)?\s(?:rather|prefer)\snot\b.*
    |my\s(?:guidelines|policies|policy|programming|instructions)\b.*
    |no\s(?:description|caption|answer|response)\s(?:is\s)?(?:available|possible)\W*
    |content\s(?:is\s)?(?:not|un)\s?available\W*
    |(?:my\s)?apologies\b.*|i\sapologi[sz]e\b.*
    |sorry\b[^.\n]{{0,80}}\b(?:i|we)\b[^.\n]{{0,40}}\b(?:can|unable|not|assist|help|won)\b.*
    |(?:unfortunately|regrettably)\W+(?:i|we|it|this|the)\b.*
    |(?:however\W+|but\W+)?i\s{_CANNOT}\s?(?:to\s)?(?:be\sable\s)?(?:\w+ly\s)?
     (?:assist|help|provide|see|view|identify|process|describe|fulfil|comply|create|generate|do
     |continue
     |complete|discuss|engage|support|analy[sz]e|access|open|display|interpret|answer|write
     |recogni[sz]e
     |share|offer|tell|comment|disclose|confirm|name|guess|reveal|verify|judge|rate|feel
     |have|perform|look|make|determine|respond|read|be)\b.*
    |i['’]m\s(?:unable|not\sable|not\sallowed|not\spermitted|programmed|designed|just|only)\b.*
    |i\sam\s(?:unable|not\sable|not\sallowed|not\spermitted|programmed|just\san|only\san)\b.*
    |i(?:['’]m|\sam)\san?\s(?:[\w-]+\s){{0,3}}(?:ai|assistant|language\smodel|chatbot)\b.*
    |as\san?\s(?:\w+\s)?(?:ai|artificial|large\slanguage|language|text)[\w\s-]*(?:model
    |assistant)\b.*
    |this\s(?:image|picture|content|request|photo)\s(?:violates|may\sviolate
    |contains\s(?:inappropriate
     |explicit|sensitive)|goes\sagainst|is\snot\sappropriate\sfor\sme)\b.*
    |(?:(?:this|your|the)\s)?(?:request|content|response|output|answer)\s(?:was\s|is\s
    |has\sbeen\s)?(?:blocked
    |filtered|refused|flagged
     |rejected|moderated)\b.*
    |it(?:['’]s|\sis)\s(?:against|not\spossible)\b.*
    |(?:es\stut\smir\sleid|tut\smir\sleid|entschuldigung|leider\s(?:kann|ist|darf)
    |ich\skann\s(?:das|dies|diese\w*
     |ihnen|dir|leider|dabei|nicht|kein\w*)|ich\sdarf
     |(?:das|dies\w*|dabei|damit|hierbei)\skann\sich\s(?:\w+\s){{0,2}}nicht)\b.*
    |(?:je\ssuis\s(?:vraiment\s)?désolée?|désolée?\b|je\sne\speux|je\sregrette)\b.*
    |(?:lo\s(?:siento|lamento)|no\spuedo|disculpa|me\sdisculpo)\b.*
    |(?:mi\sdispiace|non\sposso|non\ssono\sin\sgrado|spiacente)\b.*
    |(?:desculpe|sinto\smuito|lamento|não\sposso|não\sconsigo)\b.*
    |(?:het\sspijt\sme|sorry,\sik|ik\skan\s(?:dit|je|u|deze|niet|geen))\b.*
    |(?:jeg\sbeklager|beklager|tyvärr|desværre|dessverre|undskyld|förlåt|jag\skan\s(?:\w+\s)?inte
     |jeg\skan\s(?:\w+\s)?ikke|valitettavasti|bohužel|omlouvám|sajnálom|üzgünüm|maaf|îmi\spare\srău|nu\spot\b|xin\slỗi|tôi\skhông\sthể)\b.*
    |(?:przykro\smi|niestety|przepraszam|nie\smogę)\b.*
    |(?:извините|к\sсожалению|я\sне\sмогу|простите|вибачте|перепрошую|на\sжаль|съжалявам)\b.*
    |(?:λυπάμαι|συγγνώμη|δεν\sμπορώ|ขออภัย|ขอโทษ|عذر|آسف|أعتذر|للأسف|لا\sيمكنني|متأسف|متاسف
     |מצטער|אני\sלא\sיכול|क्षमा|माफ़|मुझे\sखेद|मैं\sइसमें\sमदद\sनहीं).*
    |(?:非常抱歉|很抱歉|抱歉|无法(?:识别|描述|处理|显示|加载|提供|回答)|無法(?:識別|描述|處理|顯示|提供|回答)|对不起|對不起|我无法|我無法|我不能|作为一个|申し訳|すみません|ごめんなさい|죄송|미안).*
    )$""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
_BLIND = re.compile(
    r"""(?ix)
    \b(?:see|view|access|process|open|display|analy[sz]e|interpret|look\sat|perceive|receive)\w*\s
      (?:any\s|the\s|an?\s|this\s|that\s|your\s|attached\s)*(?:images?|pictures?|photos?|visual
      |attachments?)\b
    |\bno\s(?:image|picture|photo|attachment)s?\s(?:was|were|is|has\sbeen
    |have\sbeen)\s(?:provided|attached
      |included|uploaded|shared|visible|given|sent)
    |\b(?:provide|upload|attach|share|send|include|paste)\s(?:me\s)?(?:the\s|an?\s|your\s|this\s
    |that\s)*
      (?:image|picture|photo)
    |\bif\syou\s(?:can\s|could\s)?(?:describe|provide|upload|share)
    |\btext-(?:based|only)\b
    |\bdon['’]?t\s(?:see|have)\s(?:any|an?|the|access)\b
    """
)
_NO_PICTURE = re.compile(
    r"""(?ix)^\W*(?:(?:but|however|so)\W+)?(?:
    (?:it\s)?(?:seems|looks|appears)\s(?:like\s|that\s)?(?:there|no|you|the)\b.{0,60}
      \b(?:image|picture|photo|attach\w*|upload\w*)\b.*
    |(?:there\sis\s|i\s(?:see|have)\s)?no\s(?:image|picture|photo)s?\s(?:was|is|has\sbeen|were
    |have\sbeen)?\s?
      (?:provided|attached|uploaded|included|to\sdescribe|given|sent|shared)\b.*
    |(?:please|could\syou|can\syou|kindly)\b.{0,40}\b(?:provide|upload|attach|share|send
    |describe)\b.*
    |i(?:['’]d|\swould)\sbe\s(?:happy|glad)\sto\b.*\b(?:but|please|provide|share
    |describe)\b.*
    |(?:error\W+)?(?:the\s)?(?:image|picture|photo)\s(?:is\s|was\s)?not\s(?:provided|available
    |found|attached
      |visible|included|accessible|loaded)\W*
    |(?:hmm+|oops|oh|uh)\W+i\s(?:can['’]?t|cannot|do(?:n['’]t|\snot))\s(?:see|find|view)\b.*
    |(?:error|exception|runtimeerror)\s?:\s.*
    |there(?:['’]s|\sis)\sno\s(?:image|picture|photo)\b.*
    |i\s(?:only\s)?(?:see|got|received)\s(?:only\s)?(?:a\s|an\s)?(?:blank|empty|no)\b.*
    |i\s(?:need|have)\sto\ssee\sthe\s(?:image|picture|photo)\b.*
    |(?:ich\ssehe\skein|es\swurde\skein\sbild|je\sne\svois\s(?:pas|aucune)|no\sveo\sninguna
    |non\svedo)\w*\b.*
    |(?:我看不到|看不到|无法查看|無法查看|没有看到|画像が(?:見え|表示)|画像を(?:見る|表示でき|読み込)|이미지를\s볼).*
    |you\s(?:haven['’]?t|have\snot|did\snot|didn['’]?t)\s(?:provided?|attached?|uploaded?
    |shared?|included?)\b.*
    |the\s(?:image|picture|photo)\s(?:you\s\w+\s)?(?:is|was|did|does|could|cannot
    |can['’]?t)\s?(?:not\s)?
      (?:be\s)?(?:missing|not\s|load|loaded|display\w*|available|visible|attached|seen|viewed
      |opened)\b.*
    )$""",
    re.DOTALL,
)


def refusal_in(text: str) -> str:
    """What a sentence is if it is no caption: "refusal", "blind", or "" for a caption.

    "blind" is a model that says that it got no image or cannot see any.
    """
    if _NO_PICTURE.match(text):
        return "blind"
    if _REFUSAL.match(text):
        return "blind" if _BLIND.search(text) else "refusal"
    return ""
