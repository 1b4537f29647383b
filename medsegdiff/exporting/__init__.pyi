from .export_bundle import export as export
