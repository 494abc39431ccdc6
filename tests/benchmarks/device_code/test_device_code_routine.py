"""Kernels are grouped by family, and their loads are read from the disassembly."""

from __future__ import annotations

from benchmarks.device_code.measure import families, family_of, load_widths, parse_sass
from bitheads.export.device_code import KernelResources

SASS = """
	code for sm_90
	.target	sm_90
arch = sm_90
		Function : pool_and_pack_float16_sign_vector
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/                   LDG.E.U16 R2, desc[UR4][R2.64] ;
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0030*/              @!P0 LDG.E.64 R8, desc[UR4][R2.64] ;
        /*0040*/               @P1 BRA 0x20 ;
        /*0050*/                   EXIT ;
        /*0060*/                   BRA 0x60 ;
		Function : grouped_dense_float32
        /*0000*/                   LDG.E R2, desc[UR4][R2.64] ;
        /*0010*/                   LDGSTS.E.128 [R2], desc[UR4][R2.64] ;
        /*0020*/                   EXIT ;
"""


def test_families_are_the_longest_known_prefix() -> None:
    assert family_of("pool_and_pack_float16_sign_vector") == "pool_and_pack, vector"
    assert family_of("pool_and_pack_float32_vote_scalar") == "pool_and_pack, scalar"
    assert family_of("packed_attention_pool_sign") == "packed_attention_pool"
    assert family_of("grouped_dense_tanh_float16") == "grouped_dense"
    assert family_of("something_new") == "something_new"


def test_loads_are_those_of_the_loops() -> None:
    instructions = parse_sass(SASS)
    assert load_widths(instructions["sm_90", "pool_and_pack_float16_sign_vector"]) == {8, 16}
    assert load_widths(instructions["sm_90", "grouped_dense_float32"]) == {4}
    assert load_widths([]) == set()


def test_a_family_shows_its_worst_kernel() -> None:
    reports = [
        KernelResources("grouped_dense_a", architecture, registers, 0, spill, shared)
        for architecture, registers, spill, shared in (
            ("sm_80", 40, 0, 9), ("sm_86", 30, 0, 9), ("sm_89", 30, 0, 9),
            ("sm_90", 50, 8, 9), ("sm_100", 30, 0, 9), ("sm_120", 30, 0, 9),
        )
    ]  # fmt: skip
    loads = [(0, "LDG.E.128 R0, [R2]"), (16, "LDG.E.U8 R0, [R2]")]
    instructions = {(r.architecture, r.kernel): loads for r in reports}
    family = families(reports, instructions)["grouped_dense"]
    assert family["kernels"] == 1
    assert family["max_registers"] == family["max_registers_by_architecture"]["sm_90"] == 50
    assert (family["max_spill_bytes"], family["max_shared_bytes"]) == (8, 9)
    assert (family["load_bytes"], family["narrowest_load_bytes"]) == (16, 1)
