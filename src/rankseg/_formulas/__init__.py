"""The mathematics: objectives, class profiles, integrals; it knows no maps and no options."""
