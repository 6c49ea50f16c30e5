"""The tables of docs/fidelity.md say what the report of the tests says."""

from __future__ import annotations

from pathlib import Path

from docs.generate_fidelity import read_report, tables

REPORT = """<testsuites><testsuite>
<testcase name="test_checkpoint_equals_its_reference[f32-mamba]"/>
<testcase name="test_checkpoint_equals_its_reference[f16-mamba]"><failure/></testcase>
<testcase name="test_runtime_computes_the_logits_of_the_original[mamba]"><skipped/></testcase>
<testcase name="test_runtime_splits_texts_as_the_original[mamba]"/>
<testcase name="test_bytes_are_those_of_llamacpp[Q4_K-numpy]"/>
<testcase name="test_bytes_are_those_of_llamacpp[Q4_K-auto]"><error/></testcase>
<testcase name="test_bytes_are_those_of_llamacpp[F16-auto]"/>
<testcase name="test_recorded_blocks[avx2]"><properties>
<property name="Q4_K" value="0 of 12 differ"/><property name="Q5_K" value="2 of 9 differ"/></properties></testcase>
<testcase name="test_recorded_blocks[numpy]"/>
<testcase name="test_recorded_creation[adapter-gguf]"/>
<testcase name="test_converted_checkpoint_runs_in_llama_cpp[B]"/>
<testcase name="test_converted_checkpoint_runs_in_llama_cpp[A]"/>
<testcase name="test_converted_checkpoint_runs_in_llama_cpp[C]"><failure/></testcase>
<testcase name="test_every_scenario"><properties>
<property name="passed" value="7"/><property name="failed copy" value="a reason"/></properties></testcase>
</testsuite></testsuites>"""


def test_tables(tmp_path: Path) -> None:
    """Equal, different, not recorded and meant are told apart, for checkpoints, types and requests."""
    (tmp_path / "report.xml").write_text(REPORT)

    lines = list(tables(read_report(tmp_path / "report.xml")))

    assert "| mamba | equal but for 2 | **differs** | – | – | – | equal | – | – |" in lines
    assert "| type | numpy | fastest compiled | recorded: avx2 |" in lines
    assert "| Q4_K | equal | **differs** | equal (12) |" in lines
    assert "It runs 2: A, B." in lines
    assert "It does **not** run 1: C." in lines
    assert "| F16 | – | equal | – |" in lines
    assert "| all requests, with `--rewrite-gguf` | 7 | copy: a reason |" in lines
    assert "| bytes are those of llamacpp | 2 | 1 | 0 |" in lines
