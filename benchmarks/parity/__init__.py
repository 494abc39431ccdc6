"""Sign agreement of every session with torch in fp32."""
