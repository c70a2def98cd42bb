"""The help of `pyroqmri` itself: commands by what they are for, and what a first day looks like."""

import click

SECTIONS = {
    "Maps": ("demo", "fit", "apply", "compare", "denoise", "cohort"),
    "Protocol and calibration": ("check", "design", "simulate"),
    "Files": ("join", "export", "report", "fits", "list"),
}
EXAMPLES = """\b
Examples:
  pyroqmri demo                                     a real brain, maps and a page to look at
  pyroqmri list signals --long dti msdki            what two signals need and map
  pyroqmri fit dwi.nii.gz --signal msdki --recipe hierarchical --out out/mine
  pyroqmri check out/mine                           are its intervals right?
  pyroqmri COMMAND --help                           options in groups, and an example"""


class Grouped(click.Group):
    """A group whose help shows its commands in sections, each with its whole first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, a section a purpose; one of no section comes with the files."""
        place = {name: title for title, names in SECTIONS.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {title: [] for title in SECTIONS}
        order = [name for names in SECTIONS.values() for name in names]
        for name in sorted(self.list_commands(ctx), key=lambda n: order.index(n) if n in order else len(order)):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                rows[place.get(name, "Files")].append((name, command.get_short_help_str(200)))
        for title, records in rows.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples."""
        formatter.write_paragraph()
        formatter.write_text(EXAMPLES)
