"""Everything the chat says, in Chinese and English; the page around it has Chainlit's own translations."""

import re
import unicodedata
from collections.abc import Sequence

from text_classifier.reading.notes import ENGLISH

CHINESE_LABELS = {"spam": "垃圾信息", "ham": "正常信息", "positive": "正面评论", "negative": "负面评论"}

# Messages to try, by the label that the model detects. Readers whose language has no texts here get the English ones.
STARTERS = {
    "spam": {
        "titles": {
            "zh": ["典型垃圾信息", "新式网络钓鱼", "家人的消息", "容易误判的通知"],
            "en": ["A classic spam", "Modern phishing", "From a friend", "A tricky notice"],
        },
        "texts": {
            "zh": [
                "恭喜您被抽中为幸运用户，奖金8万元和笔记本电脑一台，请速加微信 lucky8888 领取，过期作废！",
                "【快递通知】您的包裹因地址不详无法派送，请点击 kd-bt.example 补填信息并支付1.9元保管费。",
                "妈，我今晚加班，不回来吃饭了，给我留点汤就行",
                "【驿站】您的包裹已到东门驿站，取件码 3-2-6016，请于今晚22点前来取。",
            ],
            "en": [
                "WINNER!! You have been selected to receive a £1,000 cash prize! To claim call 09061701461 now. "
                "Valid 12 hours only.",
                "USPS: Your package has been held due to an unpaid fee of $1.99. Pay now at http://usps-redelivery.info",
                "Hey, are you coming home for dinner tonight? Mum is making noodles.",
                "Your order has been delivered and left in the porch. Thanks for shopping with us.",
            ],
        },
    },
    "positive": {
        "titles": {
            "zh": ["好评", "差评", "先扬后抑", "先抑后扬"],
            "en": ["Praise", "A bad review", "Praise that turns", "Doubt that turns"],
        },
        "texts": {
            "en": [
                "A wonderful film. The acting is superb and I was moved to tears.",
                "Two hours that I will never get back: dull, loud, predictable.",
                "The trailer promised a masterpiece and the cast is famous, but the film is a bore.",
                "I expected nothing after the poor first scenes, and ended up loving every minute of it.",
            ]
        },
    },
}

TEXTS = {
    "zh": {
        "welcome": (
            "**输入一条消息，判断它是{positive}还是{negative}**\n\n"
            "也可以拖入 .csv、.tsv、.txt、.jsonl 或 .xlsx 文件批量判断（最多 {max_rows} 行，{max_megabytes} MB）\n\n"
            "{model}\n\n{privacy}"
        ),
        "model": "模型：{base}{tuning}",
        "model_figures": " · 测试集准确率 {accuracy} · F1 {f1}（{dataset}）",
        "model_halves": "。未参与训练的消息中判断正确的：{shares}",
        "language model alone": "语言模型单独 {share}",
        "TF-IDF alone": "TF-IDF 单独 {share}",
        "both together": "两者一起 {share}",
        "model_is_useless": "**注意：在这些消息上，语言模型没有起作用。**",
        "privacy": "消息只在本服务器上处理，不会保存；上传的文件在访问结束五分钟后删除。",
        "privacy_feedback": (
            "消息只在本服务器上处理；点击“标错了”时，该消息和两个标签会存入服务器上的反馈文件。上传的文件在访问结束五分钟后删除。"
        ),
        "empty": "请输入一段文本以进行分类 · Please enter a text to classify",
        "too_long": "消息太长：最多 {limit} 个字符。较多的内容请放进文件，一行一条。",
        "answer": "该文本被分类为: **{chinese}** · {english} · {percent}",
        "probability_of": "{label}的概率",
        "threshold": "阈值 {percent}",
        "other_language": "这条消息似乎是另一种语言写的；模型只学过{languages}，这里的判断把握较小。",
        "less_sure": "这条消息不容易判断，这样的回答比较容易出错。",
        "language_en": "英文",
        "language_zh": "中文",
        "and": "和",
        "comma": "，",
        "tfidf_alone": "现在等候的消息很多，这一条由 TF-IDF 模型单独判断。",
        "truncated": "语言模型只读取了前 {limit} 个词元，底色也只标出这一部分。",
        "explaining": "正在分析哪些词起了作用……",
        "explanation": "各词对判断的影响：",
        "explanation_busy": "现在使用的人很多，暂不显示各词的影响。",
        "too_fast": "消息发得太快了，请等前面的消息处理完再发。",
        "busy": "现在使用的人很多，请稍后再试。",
        "not_stored": "无法保存这条更正，请稍后再试。",
        "error": "错误信息: 处理失败，请重试。如果仍然失败，请告知编号 {error_id}",
        "wrong": "标错了，应为{label}",
        "undo": "已记录，谢谢 · 撤销",
        "threshold_setting": "阈值：{label}的概率达到多少 % 才算",
        "language_setting": "语言 · Language",
        "explanations_setting": "显示各词的影响",
        "file_sent": "请给这个文件里的消息分类",
        "no_column": "没有选择文本列，已取消。",
        "progress": "正在分类 {name}",
        "progress_count": "{done} / {total}",
        "stop": "停止",
        "stopped": "已停止。以下是停止前已完成的部分。",
        "task_stopped": "已停止。",
        "file_done": "{name}：{total} 条消息，耗时 {seconds} 秒",
        "table_title": "前 {count} 行",
        "download": "完整结果",
        "empty_rows": "空白",
        "unclassified_rows": "未分类",
        "histogram": "{label}概率的分布（条数）",
        "one_file": "请一次上传一个文件。",
        "other_encoding": "文字乱码？换一种编码",
        "which_encoding": "{name} 是用哪种编码保存的？",
        "file_missing": "无法读取这个文件：{reason}。",
        "file_type": "不支持这种文件。可以使用：{formats}",
        "file_damaged": "这个文件不是 {ending} 压缩文件，或已损坏。",
        "file_many_inside": "这个压缩文件里有 {count} 个文件。请先解压，再选择其中一个。",
        "file_not_text": "这个文件不是文本，无法读取。请另存为 .csv、.xlsx 或 .jsonl。",
        "file_encoding_unknown": "没有名为 {encoding} 的编码。可以试试 utf-8、utf-16、gb18030 或 cp1252。",
        "file_not_table": "无法把这个文件读成表格：第 {line} 行附近的引号不成对，或单元格过长。",
        "file_uneven": (
            "第 {line} 行有 {cells} 个单元格，而表格只有 {columns} 列。消息里含有列分隔符时，请用引号把消息括起来。"
        ),
        "file_not_json": "第 {line} 行不是 JSON 对象，例如 {{“text”: “……”}}。",
        "file_too_many_columns": "列数太多：最多 {limit} 列。",
        "file_not_workbook": "这个文件不是 Excel 工作簿（.xlsx），或已损坏。",
        "file_unpacks_too_large": "这个工作簿解压后太大，无法读取。",
        "file_no_sheet": "没有工作表 {sheet}，只有 {sheets}。",
        "file_no_text_column": "没有列 {column}，只有 {columns}。",
        "file_no_label_column": "没有列 {column}，只有 {columns}。",
        "file_which_text_column": "哪一列是消息：{columns}？",
        "file_which_label_column": "哪一列是标签：{columns}？",
        "file_no_labels": "除了消息以外，没有标签列。",
        "file_several_sheets": "消息在哪个工作表里：{sheets}？",
        "file_empty": "文件里没有消息。",
        "file_too_many_rows": "行数太多：最多 {limit} 行。请分成几个文件。",
        "note_encoding": "编码：{encoding}。",
        "note_guessed": "文件没有注明编码，推测为 {encoding}。",
        "note_repaired": "有 {count} 处损坏的字符，显示为 �，第一处在第 {line} 行。",
        "note_delimiter": "列分隔符：{delimiter}",
        "note_quoted": "单元格两端的引号不算作文本。",
        "note_unquoted": "文件中的引号算作文本。",
        "file_above": "第 1 行只有一个单元格，而下面各行有 {cells} 个。请删去表格上方的行，或给每一列起名。",
        "note_lines": "每一行作为一条消息读取。",
        "note_leading_labels": "每行的第一个词被当作标签。",
        "note_header": "第一行 {name} 被当作列名。",
        "note_no_header": "第一行是消息而不是列名，所以各列称为 {columns}。",
        "note_joined": "{count} 条含有 {delimiter} 而没有加引号的消息已重新拼接。",
        "note_text_column": "消息所在的列：{column}。",
        "note_label_column": "标签所在的列：{column}。",
        "note_sheet": "读取了工作表 {sheet}；没有读取：{others}。",
    },
    "en": {
        "welcome": (
            "**Type a message to learn whether it is {positive} or {negative}**\n\n"
            "Or drop a .csv, .tsv, .txt, .jsonl or .xlsx file to classify all of its messages (up to {max_rows} rows, "
            "{max_megabytes} MB)\n\n"
            "{model}\n\n{privacy}"
        ),
        "model": "Model: {base}{tuning}",
        "model_figures": " · test accuracy {accuracy} · F1 {f1} ({dataset})",
        "model_halves": ". Held-out messages that are labelled correctly: {shares}",
        "language model alone": "language model alone {share}",
        "TF-IDF alone": "TF-IDF alone {share}",
        "both together": "both together {share}",
        "model_is_useless": "**Note: the language model is of no use on these messages.**",
        "privacy": (
            "Messages are processed on this server and not stored; uploaded files are deleted five minutes after the "
            "visit."
        ),
        "privacy_feedback": (
            "Messages are processed on this server. If you click “Wrong”, the message and both labels are stored in "
            "a feedback file there. Uploaded files are deleted five minutes after the visit."
        ),
        "empty": "Please enter a text to classify · 请输入一段文本以进行分类",
        "too_long": "That is too long: {limit} characters at most. Put more into a file, one message a line.",
        "answer": "Classified as **{english}** · {percent} · 该文本被分类为: {chinese}",
        "probability_of": "Probability of {label}",
        "threshold": "threshold {percent}",
        "other_language": "This seems to be in another language. The model learned {languages}: less sure here.",
        "less_sure": "This message is hard to tell: such answers are wrong more often.",
        "language_en": "English",
        "language_zh": "Chinese",
        "and": " and ",
        "comma": ", ",
        "tfidf_alone": "Many messages are waiting, so the TF-IDF model answered this one alone.",
        "truncated": "The language model read only the first {limit} tokens; words are shaded up to there.",
        "explaining": "Finding the words that mattered …",
        "explanation": "How much each word mattered:",
        "explanation_busy": "Many people are asking right now, so the words are not explained.",
        "too_fast": "That was too fast: please wait for the answers to your earlier messages.",
        "busy": "Many people are asking right now. Please try again in a moment.",
        "not_stored": "This correction cannot be stored now. Please try again later.",
        "error": "Something went wrong, please try again. If it stays like this, quote the number {error_id}",
        "wrong": "Wrong, it is {label}",
        "undo": "Recorded, thank you · Undo",
        "threshold_setting": "Threshold: % probability from which it is {label}",
        "language_setting": "Language · 语言",
        "explanations_setting": "Show how much each word mattered",
        "file_sent": "Classify the messages in this file",
        "no_column": "No text column was chosen; cancelled.",
        "progress": "Classifying {name}",
        "progress_count": "{done} of {total}",
        "stop": "Stop",
        "stopped": "Stopped. This is what was done until then.",
        "task_stopped": "Stopped.",
        "file_done": "{name}: {total} messages in {seconds} s",
        "table_title": "First {count} rows",
        "download": "Complete result",
        "empty_rows": "empty",
        "unclassified_rows": "not classified",
        "histogram": "Messages by probability of {label}",
        "other_encoding": "Wrong characters? Choose the encoding",
        "which_encoding": "Which encoding was {name} saved in?",
        "one_file": "Please upload one file at a time.",
        **ENGLISH,
    },
}

LANGUAGES = {"zh": "中文", "en": "English"}


def starters(label: str, language: str, learned: Sequence[str]) -> list[tuple[str, str]]:
    """Return title and text of the messages to try, for readers of `language`.

    Args:
        label: the one that the model detects.
        learned: languages that the model learned (codes such as `en`).
    """
    if label not in STARTERS:
        return []
    titles, texts = STARTERS[label]["titles"], STARTERS[label]["texts"]
    written_in = language if language in learned and language in texts else "en"
    return list(zip(titles[language], texts[written_in], strict=True))


def closest_language(code: str | None) -> str:
    """Return the language to answer in for a browser's language code, such as `zh-CN`."""
    return "zh" if (code or "").lower().startswith("zh") else "en"


def label_name(label: str, language: str) -> str:
    """Return a label's name for readers of `language`; a label without a Chinese name stays as it is."""
    return CHINESE_LABELS.get(label, label) if language == "zh" else label


def say(key: str, language: str, /, **values) -> str:
    """Return the text `key` in `language` with the values filled in.

    Raises:
        KeyError: there is no such text, or a value is missing.
    """
    return TEXTS[language][key].format(**values)


# ---------------------------------------------------------------------------- numbers, texts and names of visitors


def show_probability(probability: float) -> str:
    """Write a probability in per cent, but never as 0 % or 100 %, because no answer is certain."""
    if probability >= 0.9995:
        return "> 99.9 %"
    return f"{100 * probability:.1f} %" if probability >= 0.0005 else "< 0.1 %"


def visible(text: str) -> str:
    """Replace characters that hide text or change its direction: control characters and directional marks.

    Line breaks and tabs stay, and so do the two zero-width characters that letters and emoji need to join.
    """
    kept = "\n\r\t\u200c\u200d"
    hidden = ("Cc", "Cf", "Cs")
    return "".join("\ufffd" if unicodedata.category(one) in hidden and one not in kept else one for one in text)


def quoted(name: str) -> str:
    """Return a file's name as inline code, so that nothing in it acts as markup."""
    return "`" + re.sub(r"[`\s]+", " ", visible(name)) + "`"
