"""The report: results as versioned JSON data (`schema`), the verdict over them, and the renderers that show them."""
