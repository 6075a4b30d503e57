"""``lungmix validate``: studies of how reliable results are, and comparisons of groups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungmix.cli import options as opt
from lungmix.cli.output import emit

app = typer.Typer(
    help="Reliability of results, and statistics: fits of groups of scans, intervals, scores, groups of patients.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@app.command()
@opt.example("lungmix validate robustness cohort.zarr --out validation")
def robustness(
    store: opt.Store,
    out: opt.StudyDir = Path("validation"),
    sizes: Annotated[
        str | None,
        typer.Option(help="Numbers of scans per group, such as 10,20,30; by default 10, 20, 30 ... up to the cohort."),
    ] = None,
    groups: Annotated[int, typer.Option(help="Number of random groups per size.")] = 3,
    components: opt.StudyComponents = 5,
    prior: opt.Prior = None,
    prior_strength: opt.PriorStrength = None,
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Fit random groups of scans, plot their Gaussians (Figure 4 of the paper), and print how much they differ."""
    from lungmix.analysis.robustness import study
    from lungmix.cli.progress import progress_of
    from lungmix.cli.show_fits import robustness_values, show_robustness
    from lungmix.stages.fit import masked_counts
    from lungmix.store import open_cohort
    from lungmix.store.choices import choose_fit
    from lungmix.webpage.studies import write_robustness

    group_sizes = None if sizes is None else opt.parse_numbers(sizes, "--sizes")
    parameters = choose_fit(store, components=components, prior=prior, prior_strength=prior_strength)
    counts = masked_counts(open_cohort(store))
    with progress_of("robustness", "groups", quiet=quiet) as progress:
        result = study(
            counts,
            parameters,
            sizes=group_sizes,
            groups=groups,
            seed=seed,
            progress=progress,
        )
    files = write_robustness(result, out)
    emit(robustness_values(store, result, files), lambda console: show_robustness(console, result, files), as_json)


@app.command()
@opt.example("lungmix validate bootstrap cohort.zarr --refits 200 --out validation")
def bootstrap(
    store: opt.Store,
    out: opt.StudyDir = Path("validation"),
    refits: Annotated[int, typer.Option(help="Number of cohorts to draw from the scans, with replacement.")] = 200,
    level: Annotated[float, typer.Option(help="Level of the confidence intervals, percent.")] = 95.0,
    fit: Annotated[
        str, typer.Option("--fit", help="The fit to repeat: 'converged', 'paper' or 'anchored'.")
    ] = "converged",
    components: opt.StudyComponents = 5,
    prior: opt.Prior = None,
    prior_strength: opt.PriorStrength = None,
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compute confidence intervals of every parameter and MAP threshold, by a bootstrap over scans."""
    from lungmix.analysis.bootstrap import bootstrap as refit
    from lungmix.cli.progress import progress_of
    from lungmix.cli.show_fits import bootstrap_values, show_bootstrap
    from lungmix.stages.fit import masked_counts
    from lungmix.store import open_cohort
    from lungmix.store.choices import choose_fit
    from lungmix.webpage.studies import write_bootstrap

    parameters = choose_fit(store, components=components, fit=fit, prior=prior, prior_strength=prior_strength)
    counts = masked_counts(open_cohort(store))
    with progress_of("bootstrap", "refits", quiet=quiet) as progress:
        result = refit(counts, parameters, refits=refits, level=level, seed=seed, progress=progress)
    files = write_bootstrap(result, out)
    emit(bootstrap_values(store, result, files), lambda console: show_bootstrap(console, result, files), as_json)


@app.command()
@opt.example(
    "lungmix validate scores cohort.zarr --scores scores.csv --out validation",
    "lungmix validate scores cohort.zarr --scores scores.csv --leave-one-patient-out --fit anchored",
)
def scores(
    store: opt.Store,
    scores: Annotated[
        Path,
        typer.Option("--scores", help="CSV with a column case or patient, and S from 0 to 5.", metavar="FILE.csv"),
    ],
    consensus: Annotated[
        str,
        typer.Option(help="Score of a scan with several readers: 'median', 'majority' or that of a named reader."),
    ] = "median",
    key_table: opt.ReadKey = None,
    out: opt.StudyDir = Path("validation"),
    level: Annotated[float, typer.Option(help="Level of the confidence interval, percent.")] = 95.0,
    resamplings: Annotated[int, typer.Option(help="Number of random draws of scans.")] = 100,
    fraction: Annotated[
        float, typer.Option(help="Fraction, from 0 to 1, of the scans with each score in a draw.")
    ] = 0.8,
    detection_limit: Annotated[
        float,
        typer.Option(help="Largest lung involvement with the computed score 0, percent; below 5.", metavar="PERCENT"),
    ] = 0.0,
    bootstrap_draws: Annotated[
        int, typer.Option(help="Number of random draws of patients for the intervals of agreement; 100 or more.")
    ] = 2000,
    half_width: Annotated[
        float, typer.Option(help="Half width of the intervals that the size of the next study is computed for.")
    ] = 0.1,
    seed: opt.Seed = 0,
    leave_one_patient_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-patient-out",
            help="Also correlate with the lung involvement of each patient by the mixture of all other patients.",
        ),
    ] = False,
    fit: Annotated[
        str | None,
        typer.Option(
            "--fit",
            help="Fit for --leave-one-patient-out: 'paper', 'converged' or 'anchored'; by default as in the last fit.",
        ),
    ] = None,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Correlate the radiologist's score with the lung involvement (section 3 and Figure 5 of the paper).

    A score is also computed from the lung involvement and compared with that of the radiologist.
    """
    from lungmix.analysis import leave_one_out, score_agreement, score_table
    from lungmix.analysis.scores import study
    from lungmix.cli.progress import callback_for, progress_of
    from lungmix.cli.show_scores import scores_values, show_scores
    from lungmix.intake.key_table import KeyTable
    from lungmix.stages.measure import comparable_measurements
    from lungmix.store import open_cohort
    from lungmix.store.models import model_use
    from lungmix.webpage.studies import write_scores

    comparison = score_agreement.Settings(detection_limit, level, bootstrap_draws, seed, half_width)
    comparison.check()
    cohort = open_cohort(store)
    key_rows = None if key_table is None else KeyTable.read(key_table).rows_of(cohort)
    table = score_table.read_scores(scores)
    recorded = score_table.recorded_patients(cohort)
    rows, unscored, unmeasured = score_table.join_scores(
        comparable_measurements(cohort), table, key_rows, consensus, recorded
    )
    by_others = None
    if leave_one_patient_out:
        patients = score_table.patients_of_scans(rows, recorded)
        with progress_of("leave one patient out", "patients", quiet=quiet) as progress:
            parameters = leave_one_out.fit_of_store(cohort, fit)
            by_others = leave_one_out.involvement_by_others(cohort, patients, parameters, progress)
    result = study(
        rows,
        unscored=unscored,
        unmeasured=unmeasured,
        level=level,
        resamplings=resamplings,
        fraction=fraction,
        seed=seed,
        by_others=by_others,
        comparison=comparison,
        readings=score_table.readings_in_results(table, key_rows),
        consensus=score_table.consensus_in_results(table, consensus, key_rows),
    )
    for warning in model_use(cohort).warnings():
        callback_for(quiet=True).on_warning(warning)
    files = write_scores(result, out)
    emit(scores_values(store, result, files), lambda console: show_scores(console, result, files), as_json)


@app.command()
@opt.example(
    "lungmix validate severity cohort.zarr --out validation",
    "lungmix validate severity cohort.zarr --scores scores.csv --out validation",
)
def severity(
    store: opt.Store,
    scores: Annotated[
        Path | None,
        typer.Option(
            "--scores",
            help="CSV with a column case or patient, and scores S, S24 or S25 to compare with; of several "
            "readers, in columns such as S_anna and S_ben.",
            metavar="FILE.csv",
        ),
    ] = None,
    key_table: opt.ReadKey = None,
    out: opt.StudyDir = Path("validation"),
    detection_limit: Annotated[
        float, typer.Option(help="Largest involvement with the score 0, percent; below 5.", metavar="PERCENT")
    ] = 0.0,
    refits: Annotated[int, typer.Option(help="Number of cohorts to draw from the patients, with replacement.")] = 200,
    level: Annotated[float, typer.Option(help="Level of the intervals, percent.")] = 95.0,
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compute severity scores of each case: S, 24 points over six lung zones, and 25 points over five lobes."""
    from lungmix.analysis.case_table import read_case_table
    from lungmix.analysis.severity import study
    from lungmix.cli.progress import progress_of
    from lungmix.cli.show_severity import severity_values, show_severity
    from lungmix.intake.key_table import KeyTable
    from lungmix.store import open_cohort
    from lungmix.webpage.studies import write_severity

    cohort = open_cohort(store)
    table = None if scores is None else read_case_table(scores)
    key_rows = None if key_table is None else KeyTable.read(key_table).rows_of(cohort)
    with progress_of("severity", "refits", quiet=quiet) as progress:
        result = study(
            cohort,
            refits=refits,
            level=level,
            detection_limit=detection_limit,
            seed=seed,
            progress=progress,
            reader=table,
            key=key_rows,
        )
    files = write_severity(result, out)
    emit(severity_values(store, result, files), lambda console: show_severity(console, result, files), as_json)


@app.command()
@opt.example(
    "lungmix validate strata cohort.zarr --by kernel --out validation",
    "lungmix validate strata cohort.zarr --by manufacturer --by slice-thickness --fit anchored",
)
def strata(
    store: opt.Store,
    by: Annotated[
        list[str],
        typer.Option(
            "--by",
            help="Group scans by scanner, manufacturer, model, kernel, kvp, slice-thickness, slice-spacing or preset; "
            "repeat for groups by several attributes.",
            metavar="ATTRIBUTE",
        ),
    ],
    out: opt.StudyDir = Path("validation"),
    fit: Annotated[
        str | None,
        typer.Option("--fit", help="The fit: 'paper', 'converged' or 'anchored'; by default as in the last fit."),
    ] = None,
    min_scans: Annotated[
        int, typer.Option(help="Smallest number of scans of a group that is compared, 2 or more.")
    ] = 3,
    refits: Annotated[int, typer.Option(help="Number of cohorts to draw from each group, with replacement.")] = 200,
    level: Annotated[float, typer.Option(help="Level of the confidence intervals, percent.")] = 95.0,
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
    quiet: opt.Quiet = False,
) -> None:
    """Compare the mixtures and the lung involvement of groups of scans with equal acquisition."""
    from lungmix.analysis.leave_one_out import fit_of_store
    from lungmix.analysis.strata import study
    from lungmix.cli.progress import progress_of
    from lungmix.cli.show_strata import show_strata, strata_values
    from lungmix.store import open_cohort
    from lungmix.webpage.studies import write_strata

    cohort = open_cohort(store)
    with progress_of("strata", "groups", quiet=quiet) as progress:
        result = study(
            cohort,
            by,
            fit_of_store(cohort, fit),
            min_scans=min_scans,
            refits=refits,
            level=level,
            seed=seed,
            progress=progress,
        )
    files = write_strata(result, out)
    emit(strata_values(store, result, files), lambda console: show_strata(console, result, files), as_json)


@app.command()
@opt.example(
    "lungmix validate groups cohort.zarr --by outcome --table patients.csv --out validation",
    "lungmix validate groups cohort.zarr --by age --cut 50,70 --table patients.csv",
    "lungmix validate groups cohort.zarr --by kernel",
)
def groups(
    store: opt.Store,
    by: Annotated[
        str | None,
        typer.Option(
            "--by",
            help="Group scans by this column of --table, by sex or age, or by scanner, manufacturer, model, kernel, "
            "kvp, slice-thickness, slice-spacing or preset; without it, there is a table of the cohort.",
            metavar="COLUMN",
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option("--table", help="CSV with a column case or patient, and further columns.", metavar="FILE.csv"),
    ] = None,
    names: Annotated[
        str | None,
        typer.Option("--groups", help="Groups to compare, in this order; by default all, sorted.", metavar="GROUP,..."),
    ] = None,
    cuts: Annotated[
        str | None,
        typer.Option("--cut", help="Cut a column of numbers into groups at these numbers.", metavar="NUMBER,..."),
    ] = None,
    describe: Annotated[
        list[str] | None,
        typer.Option(
            "--describe",
            help="Add a column of --table to the table of characteristics; repeat for several. Columns sex, age and S "
            "are in it anyway.",
            metavar="COLUMN",
        ),
    ] = None,
    measurements: Annotated[
        list[str] | None,
        typer.Option(
            "--measurement",
            help="Column of measurements.csv to test; repeat for several. By default lung involvement, GGO, "
            "consolidation and volumes.",
            metavar="COLUMN",
        ),
    ] = None,
    summary: Annotated[
        str,
        typer.Option(
            help="Summary of numbers: 'median' with quartiles, 'mean' with standard deviation, or 'auto', the mean if "
            "there are 20 values or more and they are not skewed.",
            metavar="auto|median|mean",
        ),
    ] = "auto",
    repeats: Annotated[
        str,
        typer.Option(
            help="If patients have several scans: 'mixed' model of all scans, or tests of the 'first' scans.",
            metavar="mixed|first",
        ),
    ] = "mixed",
    patients: Annotated[
        Path | None,
        typer.Option(
            "--patients",
            help="CSV with the columns case and patient, and optionally date or days: which scans are of one patient. "
            "By default this is in --key-table, in --table, or recorded by followup.",
            metavar="FILE.csv",
        ),
    ] = None,
    key_table: opt.ReadKey = None,
    out: opt.StudyDir = Path("validation"),
    level: Annotated[float, typer.Option(help="Level of the confidence intervals, percent.")] = 95.0,
    bootstrap_draws: Annotated[
        int, typer.Option(help="Number of random draws of patients for the intervals; 100 or more.")
    ] = 2000,
    seed: opt.Seed = 0,
    as_json: opt.AsJson = False,
) -> None:
    """Describe and compare groups of patients: Table 1 of a publication, and tests of lung involvement by group."""
    from lungmix.analysis.group_comparison import compare_groups
    from lungmix.analysis.group_tests import Settings
    from lungmix.cli.progress import callback_for
    from lungmix.cli.show_groups import groups_values, show_groups
    from lungmix.intake.key_table import KeyTable
    from lungmix.store import open_cohort
    from lungmix.store.models import model_use
    from lungmix.webpage.studies import write_groups

    cohort = open_cohort(store)
    result = compare_groups(
        cohort,
        by,
        table=table,
        groups=() if names is None else [name.strip() for name in names.split(",")],
        cuts=() if cuts is None else opt.parse_cuts(cuts),
        describe=describe or (),
        measurements=measurements or (),
        summary=summary,
        repeats=repeats,
        patients=patients,
        key=None if key_table is None else KeyTable.read(key_table).rows_of(cohort),
        settings=Settings(level, bootstrap_draws, seed),
    )
    for warning in model_use(cohort).warnings():
        callback_for(quiet=True).on_warning(warning)
    files = write_groups(result, out)
    emit(groups_values(store, result, files), lambda console: show_groups(console, result, files), as_json)
