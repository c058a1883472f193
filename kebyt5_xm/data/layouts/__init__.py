"""Layouts: files as others publish them, read as tables. `format` of a manifest names one by `class_path`."""

from kebyt5_xm.data.layouts.aligned_text import AlignedText
from kebyt5_xm.data.layouts.delimited import Delimited
from kebyt5_xm.data.layouts.json_documents import JsonDocuments
from kebyt5_xm.data.layouts.klue_ner import KlueNer
from kebyt5_xm.data.layouts.korean_captions import KoreanCaptions
from kebyt5_xm.data.layouts.ksponspeech import KsponSpeech
from kebyt5_xm.data.layouts.layout import FILE, LINE, Layout, Row
from kebyt5_xm.data.layouts.question_answering import Squad
from kebyt5_xm.data.layouts.transcripts import Transcripts
from kebyt5_xm.data.layouts.visual_questions import VisualQuestions

__all__ = [
    "FILE",
    "LINE",
    "AlignedText",
    "Delimited",
    "JsonDocuments",
    "KlueNer",
    "KoreanCaptions",
    "KsponSpeech",
    "Layout",
    "Row",
    "Squad",
    "Transcripts",
    "VisualQuestions",
]
