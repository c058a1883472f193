"""Layouts: readers of published file formats. A manifest's `format` names one by `class_path`."""

from kebyt5_xm.data.layouts.delimited import AlignedText, Delimited
from kebyt5_xm.data.layouts.json_documents import JsonDocuments, KoreanCaptions, Squad, VisualQuestions
from kebyt5_xm.data.layouts.kaldi import Kaldi
from kebyt5_xm.data.layouts.klue_ner import KlueNer
from kebyt5_xm.data.layouts.layout import FILE, LINE, Layout, Row
from kebyt5_xm.data.layouts.nemo import NeMo
from kebyt5_xm.data.layouts.speech import KsponSpeech, Transcripts

__all__ = [
    "FILE",
    "LINE",
    "AlignedText",
    "Delimited",
    "JsonDocuments",
    "Kaldi",
    "KlueNer",
    "KoreanCaptions",
    "KsponSpeech",
    "Layout",
    "NeMo",
    "Row",
    "Squad",
    "Transcripts",
    "VisualQuestions",
]
