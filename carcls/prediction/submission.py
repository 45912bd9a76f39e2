"""A competition's submission: every Id of the sample exactly once, in its order."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from carcls.data.records import examples
from carcls.errors import UserError
from carcls.models.probabilities import probabilities_table
from carcls.run import replacing


@dataclass(kw_only=True)
class Submission:
    """What is handed in, and what it rests on.

    Attributes:
        table: Id and category, a row an Id of the sample, in its order.
        probabilities: Id and a column `p_<class>` for each class, in the same order.
        filled: Id and reason of the rows that no photo stands behind.
    """

    table: pd.DataFrame
    probabilities: pd.DataFrame
    filled: pd.DataFrame


def make_submission(
    ids: list[str],
    probs_of: dict[str, np.ndarray],
    reason_of: dict[str, str],
    class_names: list[str],
    class_counts: list[int],
    columns: tuple[str, str],
) -> Submission:
    """Joins probabilities to Ids by Id, never by position.

    An Id without probabilities gets the most frequent class of the training photos, and the
    classes' shares there as its probabilities.

    Args:
        ids: Of the sample submission, in its order.
        probs_of: Id to `(num_classes,)` probabilities.
        reason_of: Id to why it has none.
        class_names: In the order of the probabilities.
        class_counts: Training photos of each class.
        columns: Names of the id and the category column.

    Raises:
        UserError: If the result is not exactly the sample's Ids with known categories.
    """
    prior = np.array(class_counts, float) / sum(class_counts)
    probs = np.stack([probs_of.get(photo_id, prior) for photo_id in ids])
    id_column, category_column = columns
    table = pd.DataFrame(
        {id_column: ids, category_column: np.array(class_names, object)[probs.argmax(1)]}
    )
    check_submission(table, ids, class_names)
    filled = [photo_id for photo_id in ids if photo_id not in probs_of]
    return Submission(
        table=table,
        probabilities=pd.concat(
            [pd.DataFrame({id_column: ids}), probabilities_table(probs, class_names)], axis=1
        ),
        filled=pd.DataFrame(
            {id_column: filled, "reason": [reason_of[photo_id] for photo_id in filled]}
        ),
    )


def check_submission(table: pd.DataFrame, ids: list[str], class_names: list[str]) -> None:
    """Whether `table` (id, category) is one that the competition takes.

    Raises:
        UserError: If an Id is missing, unknown, repeated or out of order, or a category is not
            one of `class_names`.
    """
    id_column, category_column = table.columns
    given = table[id_column].tolist()
    repeated = table[id_column][table[id_column].duplicated()].tolist()
    if repeated:
        raise UserError(f"Expected every {id_column} exactly once. Twice: {examples(repeated)}")
    known, have = set(ids), set(given)
    absent = [i for i in ids if i not in have]
    strange = [i for i in given if i not in known]
    if absent or strange:
        raise UserError(
            f"Expected the {id_column}s of the sample submission. "
            f"Missing: {examples(absent) or 'none'}. Not in it: {examples(strange) or 'none'}."
        )
    if given != ids:
        raise UserError(f"Expected the {id_column}s in the order of the sample submission.")
    unknown = sorted(set(table[category_column]) - set(class_names))
    if unknown:
        raise UserError(
            f"Expected categories that the run knows ({examples(class_names, 12)}). "
            f"Received: {examples(unknown)}"
        )


def write_submission(submission: Submission, path: Path) -> list[Path]:
    """Writes the submission and, beside it, the probabilities and the filled rows if there are any.

    Returns:
        The files, the submission first.
    """
    files = [(path, submission.table)]
    files.append((path.with_name(f"{path.stem}_probabilities.csv"), submission.probabilities))
    filled = path.with_name(f"{path.stem}_filled.csv")
    if len(submission.filled):
        files.append((filled, submission.filled))
    for file, table in files:
        with replacing(file) as temporary:
            table.to_csv(temporary, index=False)
    if not len(submission.filled):
        filled.unlink(missing_ok=True)  # of an earlier prediction, no longer true
    return [file for file, _ in files]
