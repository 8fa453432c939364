"""costopt for LlamaIndex: nothing to import yet; `costopt.SemanticCache` can be used by hand until then."""

__all__: list[str] = []
