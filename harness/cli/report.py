"""`certify report`: the page of a bundle, written again without any framework."""

from harness.attestation import load_trust
from harness.cli.options import AtOption, BundleArgument, JsonOption, TrustOption, moment
from harness.cli.terminal import MET
from harness.cli.verdict import print_verdict
from harness.levels.rule import certify
from harness.levels.submission import read_submission
from harness.report import write_report


def report(
    bundle: BundleArgument,
    trust: TrustOption = None,
    at: AtOption = None,
    as_json: JsonOption = False,
) -> int:
    """Check a bundle as 'certify verify' does, and write its page again. Needs no framework.

    Exit code 0: the bundle holds what was recorded, whatever its level. 2: it does not.
    """
    submission = read_submission(bundle, load_trust(trust) if trust else None, asked := moment(at))
    certificate = certify(submission, asked)
    write_report(submission, certificate)
    print_verdict(submission.bundle, certificate, as_json)
    return MET
