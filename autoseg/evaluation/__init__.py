"""Fold scores, cross-validation tables, predictions against references."""

from autoseg.evaluation.crossval import CrossValidation, cross_validate, write_crossval
from autoseg.evaluation.folders import Evaluation, Pair, evaluate_folders, evaluation_text, fold_scores, write_evaluation
from autoseg.evaluation.scores import CaseScores, ClassScores, FoldScores, read_scores, score_case, write_scores
from autoseg.evaluation.tables import crossval_text

__all__ = [
    "CaseScores",
    "ClassScores",
    "CrossValidation",
    "Evaluation",
    "FoldScores",
    "Pair",
    "cross_validate",
    "crossval_text",
    "evaluate_folders",
    "evaluation_text",
    "fold_scores",
    "read_scores",
    "score_case",
    "write_crossval",
    "write_evaluation",
    "write_scores",
]
