"""What CLAIM and STARD-AI ask for, in our words, and which section of the report answers it.

CLAIM 2024: Tejani et al., Radiology: Artificial Intelligence 2024, 44 items. STARD-AI: Sounderajah et al., Nature
Medicine 2025, which extends STARD 2015 (Bossuyt et al., BMJ 2015); here the 30 items carry the numbers of STARD
2015 and the topics added for AI carry none.
"""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """One item; `answer` is a key of the answers that the report knows, or empty for the author."""

    number: str
    topic: str
    answer: str = ""


CLAIM = (
    Item("1", "Title or abstract names the AI method"),
    Item("2", "Structured abstract"),
    Item("3", "Background, intended use and clinical role", "intended_use"),
    Item("4", "Aims, objectives and hypotheses"),
    Item("5", "Prospective or retrospective study"),
    Item("6", "Goal of the study"),
    Item("7", "Sources of the data", "data"),
    Item("8", "Inclusion and exclusion criteria"),
    Item("9", "Preprocessing of the data", "preprocessing"),
    Item("10", "Selection of subsets of the data", "flow"),
    Item("11", "De-identification"),
    Item("12", "Handling of missing data", "missing"),
    Item("13", "Protocol of image acquisition"),
    Item("14", "Definition of the reference standard"),
    Item("15", "Why this reference standard"),
    Item("16", "Source of the reference annotations and who made them", "labels"),
    Item("17", "How the test set was annotated"),
    Item("18", "Variability between and within annotators"),
    Item("19", "How data were assigned to partitions", "disjoint"),
    Item("20", "Level at which partitions are disjoint", "disjoint"),
    Item("21", "Intended sample size"),
    Item("22", "Description of the model, its inputs and outputs", "model"),
    Item("23", "Software, libraries and versions", "versions"),
    Item("24", "Initialisation of the parameters"),
    Item("25", "Training: augmentation, settings, duration", "training"),
    Item("26", "How the final model was chosen"),
    Item("27", "Ensembling"),
    Item("28", "Metrics of performance", "metrics"),
    Item("29", "Uncertainty and statistical significance", "intervals"),
    Item("30", "Robustness or sensitivity analysis", "robustness"),
    Item("31", "Explainability", "map"),
    Item("32", "Evaluation on internal data"),
    Item("33", "Testing on external data"),
    Item("34", "Registration of the trial"),
    Item("35", "Numbers of patients and examinations, with a diagram", "flow"),
    Item("36", "Demographic and clinical characteristics by partition", "subgroups"),
    Item("37", "Performance on each partition", "partitions"),
    Item("38", "Estimates of performance with their precision", "main"),
    Item("39", "Analysis of failures", "failures"),
    Item("40", "Limitations"),
    Item("41", "Implications for practice"),
    Item("42", "Access to the full protocol"),
    Item("43", "Availability of software, model and data", "provenance"),
    Item("44", "Funding and the role of the funder"),
)
STARD = (
    Item("1", "Identified as a study of diagnostic accuracy"),
    Item("2", "Structured abstract"),
    Item("3", "Intended use and clinical role of the index test", "intended_use"),
    Item("4", "Objectives and hypotheses"),
    Item("5", "Data collected before or after the tests"),
    Item("6", "Eligibility criteria"),
    Item("7", "How eligible participants were identified"),
    Item("8", "Where and when participants were identified"),
    Item("9", "Consecutive, random or convenience series"),
    Item("10a", "Index test, in enough detail to repeat it", "model"),
    Item("10b", "Reference standard, in enough detail to repeat it", "labels"),
    Item("11", "Why this reference standard"),
    Item("12a", "Cut-offs of the index test, prespecified or exploratory", "points"),
    Item("12b", "Cut-offs of the reference standard"),
    Item("13a", "Were the readers of the index test blind", "blind"),
    Item("13b", "Were the assessors of the reference standard blind"),
    Item("14", "Methods for measures of diagnostic accuracy", "intervals"),
    Item("15", "Handling of indeterminate results", "undetermined"),
    Item("16", "Handling of missing data", "missing"),
    Item("17", "Analyses of variability, prespecified or exploratory", "subgroups"),
    Item("18", "Intended sample size"),
    Item("19", "Flow of participants, with a diagram", "flow"),
    Item("20", "Demographic and clinical characteristics", "subgroups"),
    Item("21a", "Severity of disease in those with the target condition"),
    Item("21b", "Alternative diagnoses in those without it"),
    Item("22", "Time and interventions between the two tests"),
    Item("23", "Cross tabulation of index test and reference standard", "confusion"),
    Item("24", "Estimates of accuracy and their precision", "main"),
    Item("25", "Adverse events"),
    Item("26", "Limitations, bias and generalisability"),
    Item("27", "Implications for practice"),
    Item("28", "Registration number"),
    Item("29", "Access to the full protocol"),
    Item("30", "Funding"),
    Item("AI", "Source of the data, their preprocessing and quality control", "preprocessing"),
    Item("AI", "Partitions of the data and how leakage was prevented", "disjoint"),
    Item("AI", "Version of the model and whether it can be had", "provenance"),
    Item("AI", "Calibration of the scores", "calibration"),
    Item("AI", "Performance in subgroups and fairness", "subgroups"),
    Item("AI", "Errors of the model and their analysis", "failures"),
    Item("AI", "Robustness to disturbed input", "robustness"),
    Item("AI", "Interaction of people with the model"),
    Item("AI", "Interests and relations to industry"),
)
