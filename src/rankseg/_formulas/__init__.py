"""The mathematics: objectives, class profiles, integrals. No module here reads maps or options."""
