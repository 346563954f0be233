"""Build the geometry bundle of the phantoms from the `myo-sim` wheel.

    pip download --no-deps --dest /tmp myo-sim==0.2.4
    python tools/bundle_geometry.py /tmp/myo_sim-0.2.4-py3-none-any.whl

Writes `bones.npz` (meshes of the right arm and the thorax, coordinates quantised to 16 bits over each
bone's bounding box: at most 6 micrometres of error for the thorax) and `arm.json` (the kinematic tree: frames,
joint axes, ranges, couplings) into `src/mskscreen/phantom/data`. The same wheel gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import struct
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path

import numpy as np

CHAIN = "myo_sim/models/arm/assets/myoarm_r_chain.xml"
ASSETS = "myo_sim/models/arm/assets/myoarm_r_assets.xml"
# The clavicle in the thorax frame: MoBL-ARMS, joint of thorax and clavicle; myo-sim composes the two in code.
STERNOCLAVICULAR = [0.006325, 0.00693, 0.025465]
BUNDLE = Path(__file__).parents[1] / "src" / "mskscreen" / "phantom" / "data"


def numbers(text: str) -> list[float]:
    """The numbers of an XML attribute."""
    return [float(word) for word in text.split()]


def plain(name: str) -> str:
    """A name without the suffix of the right side, which upstream uses on some names and not on others."""
    return name.removesuffix("_r")


def read_stl(data: bytes) -> np.ndarray:
    """Triangles (n, 3, 3) of a binary STL file."""
    (count,) = struct.unpack_from("<I", data, 80)
    record = np.dtype([("normal", "<3f4"), ("corners", "<9f4"), ("attribute", "<u2")])
    return np.frombuffer(data, record, count, 84)["corners"].reshape(-1, 3, 3).astype(np.float64)


def quantise(triangles: np.ndarray) -> dict[str, np.ndarray]:
    """Welded mesh of `triangles`: uint16 vertices, uint16 faces, and the box they are quantised over."""
    corners = triangles.reshape(-1, 3)
    low = corners.min(axis=0)
    step = (corners.max(axis=0) - low) / 65535
    vertices, inverse = np.unique(np.rint((corners - low) / step).astype(np.uint16), axis=0, return_inverse=True)
    faces = inverse.reshape(-1, 3)
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    # Rotating a face keeps its winding; sorted faces compress to about two thirds.
    first = faces.argmin(axis=1)[:, None]
    faces = np.take_along_axis(faces, (first + np.arange(3)) % 3, axis=1)
    faces = faces[np.lexsort(faces.T[::-1])]
    return {"vertices": vertices, "faces": faces.astype(np.uint16), "box": np.stack([low, step])}


def kinematic_tree(chain: ET.Element, assets: ET.Element) -> tuple[dict, dict[str, str]]:
    """The tree as JSON-able data, and the mesh file of each bone."""
    files = {mesh.get("name"): mesh.get("file", "") for mesh in assets.iter("mesh") if mesh.get("name")}
    frames: list[dict] = []
    meshes = {"thorax": files["thorax_r"]}

    def walk(body: ET.Element, parent: str | None) -> None:
        if "quat" in body.attrib or "euler" in body.attrib:
            raise SystemExit(f"{body.get('name')}: a rotated body frame is not supported")
        bones = [geom for geom in body.findall("geom") if geom.get("mesh") in files]
        if len(bones) > 1 or any("pos" in geom.attrib or "quat" in geom.attrib for geom in bones):
            raise SystemExit(f"{body.get('name')}: more than one mesh, or a displaced one, is not supported")
        name = plain(body.get("name", ""))
        if bones:
            mesh = files[bones[0].get("mesh")]
            name = Path(mesh).stem
            meshes[name] = mesh
        position = numbers(body.get("pos", "0 0 0")) if parent else STERNOCLAVICULAR
        joints = []
        for joint in body.findall("joint"):
            if any(numbers(joint.get("pos", "0 0 0"))):
                raise SystemExit(f"{joint.get('name')}: a joint away from its body's origin is not supported")
            joints.append(
                {
                    "name": plain(joint.get("name", "")),
                    "axis": numbers(joint.get("axis", "0 0 1")),
                    "range": numbers(joint.get("range", "0 0")),
                }
            )
        frames.append({"name": name, "parent": parent, "position": position, "joints": joints})
        for child in body.findall("body"):
            walk(child, name)

    walk(next(body for body in chain.iter("body") if body.get("name") == "clavicle_r"), None)
    couplings = {
        plain(joint.get("joint1", "")): {
            "driver": plain(joint.get("joint2", "")),
            "polynomial": numbers(joint.get("polycoef", "")),
        }
        for equality in assets.iter("equality")
        for joint in equality.iter("joint")
    }
    return {"frames": frames, "couplings": couplings}, meshes


def main() -> None:
    """Turn one wheel into the bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path, help="myo_sim-*.whl")
    parser.add_argument("--out", type=Path, default=BUNDLE)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(arguments.wheel) as wheel:
        chain, assets = (ET.fromstring(wheel.read(path)) for path in (CHAIN, ASSETS))  # noqa: S314
        tree, meshes = kinematic_tree(chain, assets)
        arrays = {
            f"{bone}.{name}": array
            for bone, path in sorted(meshes.items())
            for name, array in quantise(read_stl(wheel.read(f"myo_sim/models/{path}"))).items()
        }
    np.savez_compressed(arguments.out / "bones.npz", **arrays)
    (arguments.out / "arm.json").write_text(json.dumps(tree, indent=1) + "\n")
    size = sum(path.stat().st_size for path in arguments.out.iterdir())
    print(f"{len(meshes)} bones, {size / 1e6:.2f} MB in {arguments.out}")


if __name__ == "__main__":
    main()
